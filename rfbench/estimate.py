"""The dry run: what a run will spend, counted from the plan and timed on one chunk of the real model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rfbench.condition import stack
from rfbench.plan import Plan
from rfbench.processes import Processes
from rfbench.trainer import make_run


@dataclass(frozen=True)
class Estimate:
    """What a whole run will spend. Forwards and backwards count latents through the denoiser.

    ``seconds`` extrapolates one timed chunk; decoding, rewards and bookkeeping are not in it. ``memory_bytes`` is the
    peak after that chunk, and the rollout's latents and the optimiser's moments that are still to come.
    """

    prompts_per_epoch: int
    images_per_prompt: int
    reward_queries: int
    training_forwards: int
    training_backwards: int
    evaluation_forwards: int
    seconds: float
    memory_bytes: int


def estimate(plan: Plan) -> Estimate:
    """Loads the model and times one chunk forward, and one forward and backward."""
    run = make_run(plan, Processes(plan.suite.compute))
    policy, suite = run.policy, plan.suite
    chunk_size, device = suite.compute.chunk_size, run.processes.device
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
    epoch = plan.epoch_cost()
    evaluation_forwards = plan.evaluation_forwards() * plan.num_evaluations()
    forwards, backwards = epoch.forwards * suite.epochs, epoch.backwards * suite.epochs
    seconds = forward_seconds * (forwards - backwards + evaluation_forwards) / rows + both_seconds * backwards / rows
    parameters = sum(p.numel() for p in policy.trainable().values())
    images = suite.budget.reward_queries_per_epoch
    rollout_bytes = 4 * images * (suite.sampler.num_steps + 1) * latents[0].numel()
    return Estimate(
        prompts_per_epoch=plan.prompts_per_epoch,
        images_per_prompt=plan.settings.images_per_prompt,
        reward_queries=images * suite.epochs,
        training_forwards=forwards,
        training_backwards=backwards,
        evaluation_forwards=evaluation_forwards,
        seconds=seconds,
        memory_bytes=run.meter.peak_memory_bytes() + rollout_bytes + 8 * parameters,
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
