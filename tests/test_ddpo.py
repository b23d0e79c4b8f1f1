"""DDPO's loss and advantages against independent transcriptions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfbench.core.rollout import Rollout
from rfbench.suite.suite import Suite
from rfbench_algorithms.ddpo import DDPO, DDPOConfig
from rfbench_algorithms.policy_gradient import clipped_surrogate
from tests import tiny

values = st.floats(-3, 3, allow_nan=False)


@given(new=values, old=values, advantage=values, clip_range=st.sampled_from([1e-4, 0.1, 1.0]))
def test_loss_equals_ppo(new: float, old: float, advantage: float, clip_range: float) -> None:
    """The clipped surrogate as in Schulman et al. 2017, eq. 7, negated."""
    ratio = math.exp(new - old)
    clipped = min(max(ratio, 1 - clip_range), 1 + clip_range)
    expected = -min(ratio * advantage, clipped * advantage)
    arguments = [torch.tensor([x], dtype=torch.float64) for x in (new, old, advantage)]
    assert clipped_surrogate(*arguments, clip_range).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def rollout(prompts: list[str], groups: list[int], rewards: list[float]) -> Rollout:
    n = len(groups)
    return Rollout(0, prompts, torch.tensor(groups), torch.tensor(rewards), torch.zeros(n, 1), None, None,
                   torch.zeros(n, 1), {}, range(n), torch.zeros(1).long())  # fmt: skip


def standardise(rewards: list[float], population: list[float]) -> list[float]:
    mean = sum(population) / len(population)
    std = math.sqrt(sum((r - mean) ** 2 for r in population) / len(population))
    return [min(max((r - mean) / (std + 1e-6), -5), 5) for r in rewards]


def test_batch_advantages() -> None:
    rewards = [1.0, 2.0, 4.0, 8.0]
    found = DDPO(DDPOConfig(advantage="batch")).image_advantages(rollout(["a", "b"], [0, 0, 1, 1], rewards))
    assert found.tolist() == pytest.approx(standardise(rewards, rewards))


def test_group_advantages() -> None:
    found = DDPO(DDPOConfig(advantage="group")).image_advantages(
        rollout(["a", "b"], [0, 0, 1, 1], [1.0, 2.0, 4.0, 8.0])
    )
    assert found.tolist() == pytest.approx(standardise([1, 2], [1, 2]) + standardise([4, 8], [4, 8]))


def test_group_mean_advantages_are_the_prompts_deviations_over_the_batchs_std() -> None:
    rewards = [1.0, 2.0, 4.0, 8.0]
    algorithm = DDPO(DDPOConfig(advantage="group-mean"))
    found = algorithm.image_advantages(rollout(["a", "b"], [0, 0, 1, 1], rewards))
    std = statistics.pstdev(rewards)
    assert found.tolist() == pytest.approx([-0.5 / std, 0.5 / std, -2 / std, 2 / std], rel=1e-6)


@pytest.mark.parametrize("advantage", ["group", "group-mean"])
def test_a_prompts_constant_moves_no_advantage_of_its_group(advantage: Literal["group", "group-mean"]) -> None:
    """Of group-mean only the scale moves: with the constants, the batch's standard deviation grows."""
    algorithm = DDPO(DDPOConfig(advantage=advantage))
    found = [
        algorithm.image_advantages(rollout(["a", "b"], [0, 0, 1, 1], rewards))
        for rewards in ([1.0, 2.0, 4.0, 8.0], [11.0, 12.0, -6.0, -2.0])
    ]
    before, after = (values / values.norm() for values in found)
    assert torch.allclose(before, after, atol=1e-6)


@pytest.mark.parametrize("per_group", [1, 3])
def test_a_prompt_that_comes_twice_in_an_epoch_is_judged_by_all_of_its_images(per_group: int) -> None:
    """The tracker of the published code, whose statistics of a prompt are taken when all its rewards are in."""
    generator = torch.Generator().manual_seed(0)
    prompts = ["a", "b", "a", "c", "a", "b"]
    groups = torch.arange(6).repeat_interleave(per_group).tolist()
    of_image = [prompts[group] for group in groups]
    tracked: dict[str, list[float]] = {}
    algorithm = DDPO(DDPOConfig(advantage="per-prompt", buffer_size=7, min_count=2))
    for _ in range(3):
        rewards = torch.randn(len(groups), generator=generator).tolist()
        found = algorithm.image_advantages(rollout(prompts, groups, rewards)).tolist()
        for prompt, reward in zip(of_image, rewards, strict=True):
            tracked[prompt] = [*tracked.get(prompt, []), reward][-7:]
        for prompt, reward, advantage in zip(of_image, rewards, found, strict=True):
            population = tracked[prompt] if len(tracked[prompt]) >= 2 else rewards
            assert [advantage] == pytest.approx(standardise([reward], population), rel=1e-6)


@pytest.mark.parametrize("advantage", ["group", "group-mean"])
def test_the_groups_of_a_prompt_that_comes_twice_are_one(advantage: Literal["group", "group-mean"]) -> None:
    rewards = [1.0, 2.0, 10.0, 7.0, 8.0]
    algorithm = DDPO(DDPOConfig(advantage=advantage))
    twice = algorithm.image_advantages(rollout(["a", "b", "a"], [0, 0, 1, 2, 2], rewards))
    once = algorithm.image_advantages(rollout(["a", "b"], [0, 0, 1, 0, 0], rewards))
    assert twice.tolist() == once.tolist()


def test_per_prompt_advantages_use_the_buffer_once_it_is_filled() -> None:
    """A buffer of 4, used from 3 rewards on: new rewards count, the oldest leave, too few fall back to the batch."""
    algorithm = DDPO(DDPOConfig(advantage="per-prompt", buffer_size=4, min_count=3))
    epochs: Iterator[tuple[list[float], list[float], list[float]]] = iter(
        [  # rewards of prompts a, a, b; then the populations that a and b are judged by
            ([1.0, 2.0, 9.0], [1, 2, 9], [1, 2, 9]),
            ([3.0, 5.0, 7.0], [1, 2, 3, 5], [3, 5, 7]),
            ([4.0, 6.0, 8.0], [3, 5, 4, 6], [9, 7, 8]),
        ]
    )
    for rewards, of_a, of_b in epochs:
        found = algorithm.image_advantages(rollout(["a", "b"], [0, 0, 1], rewards)).tolist()
        assert found == pytest.approx(standardise(rewards[:2], of_a) + standardise(rewards[2:], of_b))
        state = algorithm.state_dict()
        algorithm = DDPO(algorithm.config)
        algorithm.load_state_dict(state)


def test_advantages_are_clipped() -> None:
    rewards = [0.0] * 99 + [1.0]  # 9.9 standard deviations out
    found = DDPO(DDPOConfig(advantage="batch")).image_advantages(rollout(["a"], [0] * 100, rewards))
    assert found.max().item() == 5.0


def test_a_second_pass_is_the_same_update_again_at_the_policy_that_the_first_one_left(suite: Suite) -> None:
    """On the same advantages and the same old log-probs, with the optimiser's moments of the first."""
    config = {"clip_range": 1e-3, "advantage": "batch"}
    twice, once = (
        tiny.make_run(tiny.plan(suite.model_copy(update={"algorithms": {"ddpo": settings}}), "ddpo"))
        for settings in (
            suite.algorithms["ddpo"].model_copy(update={"config": config | passes}) for passes in ({"passes": 2}, {})
        )
    )
    start = [parameter.clone() for parameter in once.policy.trainable().values()]
    metrics = twice.update(twice.rollout(0))
    rollout = once.rollout(0)
    single = [once.algorithm.update(rollout, once.learner) for _ in range(2)]
    pairs = zip(twice.policy.trainable().values(), once.policy.trainable().values(), start, strict=True)
    assert all(torch.equal(ours, theirs) and not torch.equal(ours, was) for ours, theirs, was in pairs)
    assert metrics["loss"] == pytest.approx((single[0]["loss"] + single[1]["loss"]) / 2)
    assert metrics["clip_fraction"] == single[1]["clip_fraction"] > 0 == single[0]["clip_fraction"]
    cost = twice.plan.epoch_cost()
    spent = twice.counters()
    assert (spent.denoiser_forwards, spent.denoiser_backwards) == (cost.forwards, cost.backwards)
    assert spent.optimizer_steps == 2
    assert cost.backwards == 2 * once.plan.epoch_cost().backwards


def test_the_ratios_start_counts_where_a_second_step_compares_with_it() -> None:
    assert DDPO(DDPOConfig(updates_per_epoch=1)).largest_start_error is None
    assert DDPO(DDPOConfig(updates_per_epoch=1, passes=2)).largest_start_error is not None
