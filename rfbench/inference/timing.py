"""The dry run's clock: one chunk of the real model, timed on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rfbench.core.conditioning import stack
from rfbench.core.processes import Processes
from rfbench.planning.arithmetic import Arithmetic
from rfbench.planning.plan import Plan, Totals
from rfbench.running.assembly import make_run
from rfbench.running.provenance import device_name

WORTH_TIMING = 1e12  # floating-point operations: some seconds of a CPU's core


@dataclass(frozen=True)
class Speed:
    """What this machine does with the suite's denoiser, at the suite's chunk size.

    Attributes:
        forward_seconds: per latent through the denoiser.
        backward_seconds: per latent, the forward that it belongs to included.
        memory_bytes: the peak after a chunk, with the rollout's latents and the optimiser's moments that are still to
            come.
        device: where it was measured.
    """

    forward_seconds: float
    backward_seconds: float
    memory_bytes: int
    device: str

    def seconds(self, totals: Totals) -> float:
        """Network calls of a whole run; decoding, rewards and bookkeeping are not in it."""
        forwards = totals.training_forwards - totals.training_backwards + totals.evaluation_forwards
        return self.forward_seconds * forwards + self.backward_seconds * totals.training_backwards


def worth_timing(counted: Arithmetic | None) -> bool:
    """Whether ``measure`` takes seconds here: on a GPU, or where the networks are small."""
    return torch.cuda.is_available() or counted is None or 12 * counted.call_flops < WORTH_TIMING


def measure(plan: Plan) -> Speed:
    """Loads the model and times one chunk forward, and one forward and backward."""
    run = make_run(plan, Processes(plan.suite.compute))
    policy, suite = run.policy, run.plan.suite
    chunk_size, device = suite.compute.pairs_per_call, run.processes.device
    shape = policy.model.latent_shape
    latents = torch.randn(chunk_size, *shape, device=device)
    steps = policy.schedule.objective_steps[:1].repeat(chunk_size)
    condition = stack([policy.encode_prompts([plan.prompts["train"][0]])] * chunk_size)

    def forward() -> None:
        with torch.no_grad():
            policy.step_mean(latents, steps, condition)

    def backward() -> None:
        policy.log_probs(latents, latents, steps, condition).sum().backward()

    forward_seconds, both_seconds = _seconds(forward, run.meter.lap), _seconds(backward, run.meter.lap)
    rows = chunk_size * policy.calls_per_prediction
    parameters = sum(p.numel() for p in policy.trainable().values())
    rollout_latents = suite.budget.reward_queries_per_epoch * (plan.sampler.num_steps + 1)
    return Speed(
        forward_seconds=forward_seconds / rows,
        backward_seconds=both_seconds / rows,
        memory_bytes=run.meter.peak_memory_bytes() + 4 * rollout_latents * latents[0].numel() + 8 * parameters,
        device=device_name(device),
    )


def _seconds(call: Callable[[], None], synchronise: Callable[[], object]) -> float:
    """The faster of two timed calls, after one to warm up."""
    call()
    times = []
    for _ in range(2):
        synchronise()
        start = time.perf_counter()
        call()
        synchronise()
        times.append(time.perf_counter() - start)
    return min(times)
