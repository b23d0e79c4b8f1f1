"""GRPO against a transcription of the official code, against DDPO, and what it leaves out."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rfbench.core.policy import REFERENCE
from rfbench.core.schedule import log_density
from rfbench.suite.suite import Suite
from rfbench_algorithms.advantages import advantages
from rfbench_algorithms.grpo import step_kl
from rfbench_algorithms.policy_gradient import clipped_surrogate
from tests import tiny
from tests.runs import assert_same_run, run

DDPO_SETTINGS = {
    "advantage": "per-prompt",
    "smallest_std": 1e-6,
    "kl_weight": 0.0,
    "drop_zero_advantages": False,
    "updates_per_epoch": 1,
}


@pytest.fixture
def listed(suite: Suite) -> Callable[..., Suite]:
    """The suite with a table of GRPO's, and DDPO's beside it."""

    def make(**config: Any) -> Suite:
        table = {"images_per_prompt": 4, "optimizer": {"learning_rate": 1e-3}}
        tables = {"grpo": table | {"config": config}, "ddpo": table}
        return Suite.model_validate(suite.model_dump() | {"algorithms": tables})

    return make


def official_advantages(rewards: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """stat_tracking.py, PerPromptStatTracker.update with global_std, and the clamp of train_sd3.py."""
    found = np.empty_like(rewards)
    std = np.std(rewards, axis=0, keepdims=True) + 1e-4
    for prompt in np.unique(prompts):
        of_prompt = rewards[prompts == prompt]
        found[prompts == prompt] = (of_prompt - np.mean(of_prompt, axis=0, keepdims=True)) / std
    return np.clip(found, -5, 5)


@pytest.mark.parametrize("clip", [1e-4, 0.05])
def test_loss_and_gradient_are_the_official_codes(clip: float) -> None:
    """sd3_sde_with_logprob.py and train_sd3.py: std_dev_t is g, the step's deviation g sqrt(-dt).

    The paper's KL divides by 2 g^2 (-dt), as here; the code leaves out dt.
    """
    draw = torch.Generator().manual_seed(0)
    shape, groups = (12, 3, 4), torch.arange(4).repeat_interleave(3)
    old, change, away, noise = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(4))
    mean = (old + 0.1 * change).requires_grad_()
    reference = old + 0.2 * away
    g = torch.rand(12, generator=draw, dtype=torch.float64) + 0.5
    dt = -torch.rand(12, generator=draw, dtype=torch.float64) * 0.1 - 0.02
    sigma = g * (-dt).sqrt()
    sampled = old + sigma[:, None, None] * noise
    rewards = torch.randn(12, generator=draw, dtype=torch.float64)

    def official_log_prob(prev_sample_mean: torch.Tensor) -> torch.Tensor:
        spread = (g * torch.sqrt(-1 * dt))[:, None, None]
        log_prob = (
            -((sampled.detach() - prev_sample_mean) ** 2) / (2 * spread**2)
            - torch.log(spread)
            - torch.log(torch.sqrt(2 * torch.as_tensor(math.pi)))
        )
        return log_prob.mean(dim=(1, 2))

    advantage = torch.from_numpy(official_advantages(rewards.numpy(), groups.numpy()))
    ratio = torch.exp(official_log_prob(mean) - official_log_prob(old).detach())
    unclipped = -advantage * ratio
    clipped = -advantage * torch.clamp(ratio, 1.0 - clip, 1.0 + clip)
    kl_of_code = ((mean - reference) ** 2).mean(dim=(1, 2)) / (2 * g**2)
    theirs = torch.mean(torch.maximum(unclipped, clipped)) + 0.04 * torch.mean(kl_of_code / -dt)

    found = advantages(rewards, groups, "group-mean", 5.0, 1e-4)
    surrogate = clipped_surrogate(log_density(sampled, mean, sigma), log_density(sampled, old, sigma), found, clip)
    ours = (surrogate + 0.04 * step_kl(mean, reference, sigma)).mean()
    gradients = [torch.autograd.grad(loss, mean, retain_graph=True)[0] for loss in (ours, theirs)]
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=0)
    assert torch.allclose(*gradients, rtol=1e-9, atol=1e-15)


def test_with_ddpos_settings_it_is_ddpo_bit_for_bit(listed: Callable[..., Suite], tmp_path: Path) -> None:
    suite = listed(**DDPO_SETTINGS)
    assert_same_run(run(suite, tmp_path, "grpo"), run(suite, tmp_path, "ddpo"))


def test_the_gradient_is_that_of_the_whole_loss(listed: Callable[..., Suite]) -> None:
    """Chunk by chunk through the learner, against one expression over all pairs; the KL is that of a second epoch."""
    made = tiny.make_run(tiny.plan(listed(kl_weight=5.0, updates_per_epoch=1), "grpo"))
    made.update(made.rollout(0))
    gradients, rollout = tiny.record_gradients(made), made.rollout(1)
    assert rollout.latents is not None
    policy, steps, total = made.policy, made.policy.schedule.objective_steps, torch.zeros(())
    advantage = torch.from_numpy(official_advantages(rollout.rewards.numpy(), rollout.groups.numpy()))
    images = torch.arange(rollout.num_images)
    for column, step in enumerate(steps):
        at = step.repeat(rollout.num_images)
        latents, conditions = rollout.latents[:, step], rollout.conditions(images)
        mean = policy.step_mean(latents, at, conditions)
        reference = policy.step_mean(latents, at, conditions, weights=REFERENCE).detach()
        ratio = (
            log_density(rollout.latents[:, step + 1], mean, policy.schedule.sigma[at]) - rollout.log_probs[:, column]
        ).exp()
        kl = (mean - reference).square().flatten(1).mean(1) / (2 * policy.schedule.sigma[step] ** 2)
        total = total + (-advantage * ratio + 5.0 * kl).mean() / len(steps)
    expected = torch.autograd.grad(total, list(policy.trainable().values()))
    metrics = made.update(rollout)
    assert metrics["kl_per_dimension"] > 0
    for found, wanted in zip(gradients, expected, strict=True):
        assert torch.allclose(found, wanted.float(), rtol=1e-3, atol=1e-5 * float(wanted.abs().max()) + 1e-9)


def test_images_as_good_as_their_prompts_mean_cost_nothing_and_change_nothing(listed: Callable[..., Suite]) -> None:
    """Rewards of one prompt all tie at a value whose mean differs from it in the last bit."""
    made = tiny.make_run(tiny.plan(listed(updates_per_epoch=1), "grpo"))
    rollout = made.rollout(0)
    rollout.rewards[:4] = 0.1
    counted = made.algorithm.counted(made.algorithm.image_advantages(rollout))  # type: ignore[attr-defined]
    assert counted.tolist() == [False] * 4 + [True] * 8
    before = made.counters()
    made.update(rollout)
    spent = made.counters().denoiser_backwards - before.denoiser_backwards
    assert spent == made.plan.epoch_cost().backwards * 8 / 12


def test_an_epoch_of_ties_is_no_step(listed: Callable[..., Suite]) -> None:
    made = tiny.make_run(tiny.plan(listed(), "grpo"))
    rollout = made.rollout(0)
    rollout.rewards.fill_(0.3)
    before = {name: value.clone() for name, value in made.policy.state_dict().items()}
    metrics = made.update(rollout)
    assert made.counters().optimizer_steps == 0
    assert all(torch.equal(before[name], value) for name, value in made.policy.state_dict().items())
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("kl_weight", [0.0, 0.04])
def test_the_dry_run_counts_what_a_run_spends(listed: Callable[..., Suite], kl_weight: float) -> None:
    made = tiny.make_run(tiny.plan(listed(kl_weight=kl_weight, drop_zero_advantages=False), "grpo"))
    before = made.counters()
    made.update(made.rollout(0))
    counted, told = made.counters(), made.plan.epoch_cost()
    assert counted.denoiser_forwards - before.denoiser_forwards == told.forwards
    assert counted.denoiser_backwards == told.backwards


def test_advantages_without_a_deviation_are_in_units_of_the_reward() -> None:
    rewards, groups = torch.tensor([1.0, 2.0, 6.0, 0.0, 100.0]).double(), torch.tensor([0, 0, 0, 1, 1])
    assert advantages(rewards, groups, "group-centred", 5.0).tolist() == [-2.0, -1.0, 3.0, -50.0, 50.0]
    assert advantages(rewards, groups, "leave-one-out", 5.0).tolist() == [-3.0, -1.5, 4.5, -100.0, 100.0]
