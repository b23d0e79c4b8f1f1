"""RWR's weights and loss against independent transcriptions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfbench.running.assembly import Run
from rfbench.suite.suite import Suite
from rfbench_algorithms.rwr import RWR, RWRConfig, num_best, softmax_weights, sparse_weights
from tests import tiny

rewards_with_ties = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=12)


def softmax_by_hand(rewards: list[float], inverse_temperature: float, standardise: bool) -> list[float]:
    if standardise:
        mean = sum(rewards) / len(rewards)
        std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
        rewards = [(r - mean) / (std + 1e-6) for r in rewards]
    exponentials = [math.exp(inverse_temperature * r) for r in rewards]
    return [len(rewards) * e / sum(exponentials) for e in exponentials]


@given(rewards=rewards_with_ties, inverse_temperature=st.sampled_from([0.2, 1.0, 7.0]), standardise=st.booleans())
def test_softmax_weights(rewards: list[float], inverse_temperature: float, standardise: bool) -> None:
    found = softmax_weights(torch.tensor(rewards, dtype=torch.float64), inverse_temperature, standardise)
    assert found.tolist() == pytest.approx(softmax_by_hand(rewards, inverse_temperature, standardise), rel=1e-9)
    assert float(found.mean()) == pytest.approx(1)


@given(count=st.integers(1, 40), percentile=st.sampled_from([0.0, 50.0, 75.0, 90.0, 99.0]), seed=st.integers(0, 99))
def test_sparse_weights_keep_the_rewards_from_the_percentile_up(count: int, percentile: float, seed: int) -> None:
    rewards = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).double()  # distinct
    weights = sparse_weights(rewards, percentile)
    kept = rewards >= torch.quantile(rewards, percentile / 100) - 1e-9
    assert torch.equal(weights > 0, kept)
    assert int(kept.sum()) == num_best(count, percentile)
    assert weights[kept].tolist() == pytest.approx([count / int(kept.sum())] * int(kept.sum()))


@given(rewards=rewards_with_ties, percentile=st.sampled_from([50.0, 90.0]))
def test_sparse_weights_with_ties_keep_as_many(rewards: list[float], percentile: float) -> None:
    tensor = torch.tensor(rewards, dtype=torch.float64)
    weights = sparse_weights(tensor, percentile)
    assert int((weights > 0).sum()) == num_best(len(rewards), percentile)
    assert tensor[weights > 0].min() >= (tensor[weights == 0].max() if (weights == 0).any() else -math.inf)


def make(suite: Suite, images_per_prompt: int = 2, **config: Any) -> Run:
    settings = {"rwr": {"images_per_prompt": images_per_prompt, "config": config}}
    return tiny.make_run(tiny.plan(Suite.model_validate(suite.model_dump() | {"algorithms": settings}), "rwr"))


@pytest.mark.parametrize("images_per_prompt", [2, 4])
def test_weights_compete_in_the_epoch_or_in_the_prompt(suite: Suite, images_per_prompt: int) -> None:
    rollout = make(suite, images_per_prompt).rollout(0)
    rewards = rollout.rewards.tolist()
    in_epoch = RWR(RWRConfig(over="epoch"))._weights(rollout).tolist()
    assert in_epoch == pytest.approx(softmax_by_hand(rewards, 1.0, True), rel=1e-6)
    in_prompt = RWR(RWRConfig(over="prompt", inverse_temperature=2.0))._weights(rollout).tolist()
    groups = [rewards[i : i + images_per_prompt] for i in range(0, 12, images_per_prompt)]
    assert in_prompt == pytest.approx([w for g in groups for w in softmax_by_hand(g, 2.0, True)], rel=1e-6)


@pytest.mark.parametrize("guided", [False, True])
def test_the_gradient_is_that_of_the_weighted_denoising_loss(suite: Suite, guided: bool) -> None:
    run = make(suite, updates_per_epoch=1, guided=guided)
    gradients = tiny.record_gradients(run)
    before = {name: value.clone() for name, value in run.policy.state_dict().items()}
    rollout = run.rollout(0)
    assert rollout.latents is None
    metrics = run.update(rollout)
    run.policy.load_state_dict(before)
    weights = softmax_by_hand(rollout.rewards.tolist(), 1.0, True)
    alpha_bar = run.policy.model.noise_schedule.alphas_cumprod
    total = torch.zeros(())
    for image in range(12):
        generator = run.learner.generator("rwr", 0, 0, image)
        t = torch.randint(1000, (), generator=generator)
        noise = torch.randn(4, 8, 8, generator=generator)
        noisy = alpha_bar[t].sqrt() * rollout.clean_latents[image] + (1 - alpha_bar[t]).sqrt() * noise
        condition = run.policy.encode_prompts([rollout.prompts[int(rollout.groups[image])]])
        predicted = run.policy.predict_noise(noisy[None].float(), t[None], condition, guided=guided)
        total = total + weights[image] * (noise - predicted[0]).square().mean() / 12
    assert metrics["loss"] == pytest.approx(float(total.detach()), rel=1e-4)
    expected = torch.autograd.grad(total, list(run.policy.trainable().values()))
    size = max(float(value.abs().max()) for value in expected)
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5 * size)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"guided": True},
        {"weights": "sparse"},
        {"weights": "sparse", "over": "prompt", "percentile": 50},
    ],
)
def test_counters_equal_the_plan(suite: Suite, config: dict[str, Any]) -> None:
    run = make(suite, updates_per_epoch=3, **config)
    rollout = run.rollout(0)
    rollout.rewards = rollout.rewards.round(decimals=2)  # with ties
    run.update(rollout)
    cost, counters = run.plan.epoch_cost(), run.meter.counters
    assert (counters.denoiser_forwards, counters.denoiser_backwards) == (cost.forwards, cost.backwards)
    assert counters.optimizer_steps == 3
