"""The throughput benchmark goes through both ways with the same work, on any pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfbench_benchmarks.cost import epoch

pytestmark = pytest.mark.slow


def test_both_ways_do_the_same_work(folders: dict[str, Path]) -> None:
    arguments = ["--model", str(folders["xl"]), "--images", "16", "--steps", "2", "--chunk-size", "8", "--lora"]
    options = epoch.parse([*arguments, "--repeats", "1", "--precision", "bf16", "--gradient-checkpointing"])
    ways = epoch.make_ways(options)
    found = epoch.measure(ways, options.repeats)
    ours, plain = (way.meter.counters for way in ways.values())
    assert ours == plain
    images, steps = 2 * 16, 1  # two rounds; the second step of two has no noise
    assert ours.denoiser_forwards == 2 * images * (2 + steps + steps)  # sampled, reference, trained; guided
    assert ours.denoiser_backwards == 2 * images * steps
    assert [len(epochs) for epochs in found.values()] == [1, 1]
    lines = epoch.table(ways, found, options.precision).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["rfbench", "plain"]
