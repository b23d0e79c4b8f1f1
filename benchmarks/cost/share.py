"""The bare network's share of an epoch, algorithm by algorithm: what is left is not network.

    python benchmarks/cost/share.py [--algorithms prdp ddpo dpok nft] [--chunk-size auto] [--repeats 3]

On large-shapes, one thread, in CPU time. A share is of one and the same epoch: the seconds inside of the UNet's calls
and of the backward passes, of those of sampling (with the prompts' encoding), reference and update, and of the whole
epoch with decoding and rewards. Beside it, how fast the UNet is on as many rows as a call of the epoch has, against the
fastest of several batches. On a machine that does other work, differences of a tenth in the latter are noise. RWR is
not among the algorithms, since only the last epoch of its rounds has an update.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from rfbench.core.policy import Policy
from rfbench.core.processes import Processes
from rfbench.planning.plan import make_plan
from rfbench.running.assembly import Run, make_run
from rfbench.suite.loading import load_suite

BATCHES = (64, 128, 256)
ROWS = 1024  # of each batch in a repeat
NETWORK_PHASES = ("sample", "reference", "update")
OTHER_PHASES = ("decode", "reward", "other")
NFT = ["algorithms.nft.algorithm=nft", "algorithms.nft.images_per_prompt=8"]  # the suite has no settings of it


class Clock:
    """CPU seconds inside of a policy's networks and of backward passes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose time counts."""

        def inside(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.process_time() - start

        return inside

    @contextmanager
    def running(self, policy: Policy) -> Iterator[None]:
        """Counts what happens inside."""
        with ExitStack() as stack:
            for network in filter(None, (policy.denoiser, policy.frozen_copy)):
                stack.enter_context(patch.object(network, "forward", self.timed(network.forward)))
            stack.enter_context(patch.object(torch.Tensor, "backward", self.timed(torch.Tensor.backward)))
            yield


def seconds_a_row(run: Run, rows: int) -> float:
    """Of the UNet, forward and backward, in calls of so many rows."""
    unet, policy = run.policy.denoiser, run.policy
    text = policy.encode_prompts([run.plan.prompts["train"][0]])["text"]
    latents, times = torch.randn(rows, *policy.model.latent_shape), torch.full((rows,), 500)
    condition = text.expand(rows, -1, -1).contiguous()
    start = time.process_time()
    for _ in range(ROWS // rows):
        unet(latents, times, encoder_hidden_states=condition, return_dict=False)[0].sum().backward()
    unet.zero_grad(set_to_none=True)
    return (time.process_time() - start) / (ROWS // rows * rows)


def share(label: str, overrides: list[str], repeats: int) -> str:
    """One line: the shares of an epoch, and what they are made of."""
    plan = make_plan(load_suite("large-shapes", overrides), label, seed=0)
    clock = Clock()
    shares: list[tuple[float, float, float]] = []
    with patch("time.perf_counter", time.process_time):  # the meter's clock
        run = make_run(plan, Processes(plan.suite.compute))
        in_a_call = run.plan.suite.compute.pairs_per_call * run.policy.calls_per_prediction
        rates: dict[int, list[float]] = {rows: [] for rows in (*BATCHES, in_a_call)}
        for number in range(repeats):
            for rows, found in rates.items():
                found.append(seconds_a_row(run, rows))
            before, before_network = run.meter.lap(), clock.seconds
            with clock.running(run.policy):
                run.update(run.rollout(number))
            spent = {name: seconds - before[name] for name, seconds in run.meter.lap().items()}
            around = sum(spent[name] for name in NETWORK_PHASES)
            shares.append((clock.seconds - before_network, around, around + sum(spent[n] for n in OTHER_PHASES)))
    network, around, epoch = (median(values) for values in zip(*shares, strict=True))
    of_phases, of_epoch = (median(found[0] / found[k] for found in shares) for k in (1, 2))
    typical = {rows: median(found) for rows, found in rates.items()}
    return (
        f"{label:6} UNet {network:6.2f} s: {of_phases:4.0%} of sampling, reference and update ({around:.2f} s), "
        f"{of_epoch:4.0%} of the epoch ({epoch:.2f} s); calls of {in_a_call} rows are "
        f"{min(typical.values()) / typical[in_a_call]:4.0%} as fast as those of {min(typical, key=typical.__getitem__)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=["prdp", "ddpo", "dpok", "nft"])
    parser.add_argument("--chunk-size", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    overrides = [f"compute.chunk_size={options.chunk_size}", "compute.device=cpu", *NFT, *options.overrides]
    for label in options.algorithms:
        print(share(label, overrides, options.repeats), flush=True)


if __name__ == "__main__":
    main()
