"""The bare network's share of an epoch, algorithm by algorithm: what is left is not network.

    python benchmarks/cost/share.py [--algorithms prdp ddpo dpok] [--chunk-size auto] [--repeats 3]

On large-shapes, one thread. The bare network is the UNet alone, forward or forward and backward, on as many rows as the
epoch's counters say, at the fastest of several batches; the epoch is sampling, reference and update, and beside it
decoding and rewards. Bare calls and epochs take turns, and the ratio is of CPU time, so a machine that does other work
disturbs both alike; the best of the repeats counts for each. RWR is not among the algorithms, since only the last epoch
of its rounds has an update.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from unittest.mock import patch

import torch

from rfbench.core.processes import Processes
from rfbench.planning.plan import make_plan
from rfbench.running.assembly import Run, make_run
from rfbench.suite.loading import load_suite

BATCHES = (64, 128, 256)
NETWORK_PHASES = ("sample", "reference", "update")


@dataclass
class Bare:
    """CPU seconds of one row through the UNet, at the best batch so far."""

    forward: float = float("inf")
    both: float = float("inf")

    def measure(self, run: Run) -> None:
        """Once more at each batch, keeping the best."""
        unet, policy = run.policy.denoiser, run.policy
        text = policy.encode_prompts([run.plan.prompts["train"][0]])["text"]
        for rows in BATCHES:
            latents, times = torch.randn(rows, *policy.model.latent_shape), torch.full((rows,), 500)
            condition = text.expand(rows, -1, -1).contiguous()
            start = time.process_time()
            with torch.no_grad():
                unet(latents, times, encoder_hidden_states=condition, return_dict=False)
            middle = time.process_time()
            unet(latents, times, encoder_hidden_states=condition, return_dict=False)[0].sum().backward()
            end = time.process_time()
            unet.zero_grad(set_to_none=True)
            self.forward = min(self.forward, (middle - start) / rows)
            self.both = min(self.both, (end - middle) / rows)

    def seconds(self, forwards: int, backwards: int) -> float:
        """Of so many rows; a row's backward has its forward among the ``forwards``."""
        return self.forward * (forwards - backwards) + self.both * backwards


def share(label: str, overrides: list[str], repeats: int) -> str:
    """One line: the shares of an epoch, and what they are made of."""
    plan = make_plan(load_suite("large-shapes", overrides), label, seed=0)
    bare, best = Bare(), dict[str, float]()
    with patch("time.perf_counter", time.process_time):  # the meter's clock
        run = make_run(plan, Processes(plan.suite.compute))
        for number in range(repeats):
            bare.measure(run)
            before, counted = run.meter.lap(), run.meter.counters.as_dict()
            run.update(run.rollout(number))
            spent = {name: seconds - before[name] for name, seconds in run.meter.lap().items()}
            best = {name: min(best.get(name, seconds), seconds) for name, seconds in spent.items()}
    now = run.meter.counters.as_dict()
    forwards, backwards = (now[name] - counted[name] for name in ("denoiser_forwards", "denoiser_backwards"))
    network, needed = sum(best[name] for name in NETWORK_PHASES), bare.seconds(forwards, backwards)
    whole = network + best["decode"] + best["reward"] + best["other"]
    chunk = run.plan.suite.compute.chunk_size
    return (
        f"{label:6} chunk {chunk:>4}: bare {needed:6.2f} s, {needed / network:4.0%} of sampling, reference and update "
        f"({network:.2f} s), {needed / whole:4.0%} of the epoch ({whole:.2f} s)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=["prdp", "ddpo", "dpok"])
    parser.add_argument("--chunk-size", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    overrides = [f"compute.chunk_size={options.chunk_size}", "compute.device=cpu", *options.overrides]
    for label in options.algorithms:
        print(share(label, overrides, options.repeats), flush=True)


if __name__ == "__main__":
    main()
