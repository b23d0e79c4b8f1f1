"""Resident memory of training, epoch by epoch: it must not grow with the prompts that training has met.

    python benchmarks/cost/memory.py [--epochs 300] [--set KEY=VALUE ...]

DDPO on large-shapes, on the CPU: an epoch takes 128 of 206,700 prompts, as in a real run, but only two denoising steps
and one update, and nothing is evaluated. Prints the resident MiB after every tenth of the epochs, and at the end by how
much the second half grew, beside the size of the encoded prompts that it met: were they kept, it would grow by that.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rfbench.core.conditioning import num_bytes
from rfbench.core.processes import Processes
from rfbench.planning.plan import make_plan
from rfbench.running.assembly import make_run
from rfbench.suite.loading import load_suite

SMALL = (
    "sampler.num_steps=2",
    "sampler.skip_last_steps=1",
    "algorithms.ddpo.config.updates_per_epoch=1",
    "compute.device=cpu",
)


def resident() -> float:
    """MiB of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    plan = make_plan(load_suite("large-shapes", [*SMALL, *options.overrides]), "ddpo", seed=0)
    run = make_run(plan, Processes(plan.suite.compute))
    one = num_bytes(run.policy.encode_prompts([plan.prompts["train"][0]])) / 2**20
    print(f"{plan.prompts_per_epoch} prompts an epoch, of {one:.4f} MiB each; {len(plan.prompts['train'])} in all")
    curve = []
    for epoch in range(options.epochs):
        run.update(run.rollout(epoch))
        curve.append(resident())
        if (epoch + 1) % max(1, options.epochs // 10) == 0:
            print(f"epoch {epoch + 1}: {curve[-1]:.0f} MiB", flush=True)
    middle = options.epochs // 2
    met = (options.epochs - middle) * plan.prompts_per_epoch * one
    print(f"second half: {curve[-1] - curve[middle]:+.1f} MiB, while {met:.0f} MiB of new prompts were met")


if __name__ == "__main__":
    main()
