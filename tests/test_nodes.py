"""One run on two nodes: two of torchrun's agents, on one machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.loading import load_suite
from rfbench.suite.suite import Suite
from tests import tiny
from tests.forked import free_port, on_processes
from tests.test_processes import arguments, weights


def agents(suite: Path, out: Path, *options: str) -> list[subprocess.Popen[str]]:
    """One run by two of torchrun's agents with a process each, as on two nodes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launch += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    run = ["-m", "rfbench", *arguments(suite, out, *options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [*launch, "--node-rank", rank, *run],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]


def one_node(rank: int, suite: Suite, out: Path) -> None:
    train(tiny.plan(suite), out, Quiet())


@pytest.mark.slow
def test_two_nodes_stop_together_when_asked_and_end_as_two_processes_of_one_do(
    suite_file: Path, tmp_path: Path
) -> None:
    options = ["--set", "epochs=20", "--set", "evaluation.every=10", "--set", "compute.checkpoint_every=50"]
    folder = tmp_path / "nodes" / "mine" / "prdp" / "seed-0"
    both = agents(suite_file, tmp_path / "nodes", *options)
    end = time.monotonic() + 600
    while not ((folder / "run.json").exists() and json.loads((folder / "run.json").read_text())["epoch"] >= 2):
        assert time.monotonic() < end
        assert both[0].poll() is None, both[0].communicate()[0]
        time.sleep(0.1)
    for agent in both:
        agent.send_signal(signal.SIGTERM)
    printed = [agent.communicate(timeout=600)[0] for agent in both]
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "interrupted", printed
    assert 2 <= record["epoch"] < 20
    assert [path.name for path in (folder / "checkpoints").iterdir() if path.name.startswith("epoch-")] == [
        f"epoch-{record['epoch']:06d}"  # the boundary that both agreed on, where no checkpoint was due
    ]
    both = agents(suite_file, tmp_path / "nodes", *options, "--resume")
    printed = [agent.communicate(timeout=600)[0] for agent in both]
    assert [agent.returncode for agent in both] == [0, 0], printed
    suite = load_suite(str(suite_file), [*options[1::2], "algorithms.prdp.images_per_prompt=2"])
    assert on_processes(2, one_node, suite, tmp_path / "one") == [("returned", None)] * 2
    ours, theirs = weights(folder), weights(tmp_path / "one" / "mine" / "prdp" / "seed-0")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (folder / "evals.jsonl").read_bytes() == (
        tmp_path / "one" / "mine" / "prdp" / "seed-0" / "evals.jsonl"
    ).read_bytes()
