"""DPOK's loss, value network and replay against independent transcriptions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfbench.running.assembly import Run
from rfbench.suite.suite import Suite
from rfbench_algorithms.dpok import DPOK, DPOKConfig, dpok_loss
from rfbench_algorithms.replay import Transitions
from rfbench_algorithms.value import CrossFittedValue, ValueNetwork, baseline_quality, unseen
from tests import tiny

values = st.floats(-3, 3, allow_nan=False)


@given(
    new=values,
    step=st.sampled_from([0.0, 1e-5, -1e-5, 9.9e-5, 1.1e-4, -1.1e-4, 0.5, -2.0]),  # on both sides of both clip edges
    advantage=values,
    noise_error=st.floats(0, 4),
    clip_range=st.sampled_from([1e-4, 0.1]),
    weights=st.sampled_from([(10.0, 0.01), (1000.0, 0.1), (1.0, 0.0)]),
)
def test_loss_and_gradient_equal_the_papers(
    new: float, step: float, advantage: float, noise_error: float, clip_range: float, weights: tuple[float, float]
) -> None:
    """Fan et al. 2023, algorithm 1 with the published plain clamp, for one transition."""
    old = new - step
    config = DPOKConfig(reward_weight=weights[0], kl_weight=weights[1], clip_range=clip_range)
    ratio = math.exp(new - old)
    clamped = 1 - clip_range if ratio < 1 - clip_range else 1 + clip_range if ratio > 1 + clip_range else ratio
    inside = clamped == ratio
    tensors = [torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (new, old, advantage, noise_error)]
    loss = dpok_loss(*tensors, config)
    assert loss.item() == pytest.approx(
        -weights[0] * advantage * clamped + weights[1] * noise_error, rel=1e-12, abs=1e-12
    )
    by_log_prob, by_noise_error = torch.autograd.grad(loss.sum(), [tensors[0], tensors[3]])
    assert by_log_prob.item() == pytest.approx(-weights[0] * advantage * ratio if inside else 0.0, rel=1e-12, abs=1e-12)
    assert by_noise_error.item() == weights[1]


def test_value_network_equals_its_formula() -> None:
    """relu(gamma_l(t) * (W_l x + b_l)) three times, then a linear head; and the same key gives the same network."""
    network = ValueNetwork(5, 4, torch.Generator().manual_seed(3)).double()
    again = ValueNetwork(5, 4, torch.Generator().manual_seed(3)).double()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    torch.nn.init.normal_(network.head.weight)
    inputs, steps = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3, 0])
    for row, step in enumerate(steps):
        x = inputs[row]
        for index, layer in enumerate(network.layers):
            scale = network.scales.weight[step, 256 * index : 256 * (index + 1)]
            x = torch.relu(scale * (layer.get_parameter("weight") @ x + layer.get_parameter("bias")))
        expected = network.head.weight[0] @ x + network.head.bias[0]
        torch.testing.assert_close(network(inputs, steps)[row], expected, rtol=1e-12, atol=1e-12)


def fitted_values(rewards: torch.Tensor, updates: int = 5) -> torch.Tensor:
    """Of 3 networks on 24 transitions, ``(3, 24)``, after a few steps on all of them."""
    generator = torch.Generator().manual_seed(1)
    inputs, steps = torch.randn(24, 5, generator=generator).double(), torch.arange(24) % 4
    value = CrossFittedValue(5, 4, 3, 1e-2, generator).double()
    value.standardise_by(rewards)
    for _ in range(updates):
        value.fit(inputs, steps, torch.arange(24) % 3, rewards)
    return value(inputs, steps).detach()


def test_the_value_of_an_image_does_not_depend_on_its_own_reward() -> None:
    """Of two rewards of fold 0 exchanged, so that mean and std stay, network 0 sees nothing and the others do."""
    rewards = torch.randn(24, generator=torch.Generator().manual_seed(2)).double()
    exchanged = rewards.clone()
    exchanged[[0, 9]] = rewards[[9, 0]]
    before, after = fitted_values(rewards), fitted_values(exchanged)
    torch.testing.assert_close(before[0], after[0], rtol=0, atol=1e-12)
    assert (before[1:] - after[1:]).abs().max() > 1e-3


def test_values_follow_the_scale_and_offset_of_the_reward() -> None:
    rewards = torch.randn(24, generator=torch.Generator().manual_seed(2)).double()
    torch.testing.assert_close(
        fitted_values(21 + 0.03 * rewards), 21 + 0.03 * fitted_values(rewards), rtol=0, atol=1e-10
    )
    assert torch.equal(fitted_values(torch.full((24,), 2.0).double()), torch.full((3, 24), 2.0).double())


def test_the_quality_of_a_baseline_equals_its_formulas() -> None:
    generator = torch.Generator().manual_seed(4)
    rewards, values = torch.randn(12, generator=generator), torch.randn(3, 12, generator=generator)
    folds, means = torch.arange(12) % 3, torch.randn(4, generator=generator).repeat_interleave(3)
    r, m = rewards.double().numpy(), means.double().numpy()
    own = np.array([values[i % 3, i] for i in range(12)], dtype=np.float64)
    fitted = np.mean([(r[i] - float(values[f, i])) ** 2 for i in range(12) for f in range(3) if f != i % 3])
    assert baseline_quality(values, folds, rewards, means) == pytest.approx(
        {
            "value_error": ((r - own) ** 2).mean() / r.var(),
            "value_error_fitted": fitted / r.var(),
            "advantage_correlation": np.corrcoef(r - own, r - m)[0, 1],
            "constant_correlation": np.corrcoef(r, r - m)[0, 1],
        },
        rel=1e-9,
    )


def test_the_quality_is_left_out_where_it_is_not_defined() -> None:
    values, folds = torch.zeros(2, 4), torch.arange(4) % 2
    rewards = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert baseline_quality(values, folds, torch.ones(4), torch.ones(4)) == {}  # all rewards equal
    one_image_a_prompt = baseline_quality(values, folds, rewards, means=rewards)
    assert one_image_a_prompt.keys() == {"value_error", "value_error_fitted"}


def make(suite: Suite, **config: Any) -> Run:
    settings = {"dpok": {"images_per_prompt": 2, "config": config}}
    return tiny.make_run(tiny.plan(Suite.model_validate(suite.model_dump() | {"algorithms": settings}), "dpok"))


def replay_of(run: Run) -> Transitions:
    assert isinstance(run.algorithm, DPOK)
    assert run.algorithm._replay is not None
    return run.algorithm._replay


def test_replay_holds_the_most_recent_transitions_as_they_were_sampled(suite: Suite) -> None:
    """48 transitions an epoch into a replay of 60: all of the latest epoch, and 12 of the one before."""
    run = make(suite, replay_size=60, batch_size=8, value_batch_size=8)
    for epoch in range(2):
        rollout = run.rollout(epoch)
        run.update(rollout)
    replay = replay_of(run)
    assert replay.epochs.tolist() == [0] * 12 + [1] * 48
    assert rollout.latents is not None
    seen = set()
    for row in range(12, 60):
        (match,) = torch.nonzero((rollout.latents[:, :-1] == replay.latents[row, 0]).flatten(2).all(2))
        image, step = match.tolist()
        assert torch.equal(rollout.latents[image, step + 1], replay.latents[row, 1])
        assert replay.steps[row] == step
        assert replay.rewards[row] == rollout.rewards[image]
        assert replay.prompt_means[row] == rollout.group_means()[image]
        assert replay.folds[row] == image % 4
        column = run.policy.schedule.objective_steps.tolist().index(step)
        assert replay.log_probs[row] == rollout.log_probs[image, column]
        assert replay.prompts[row] == rollout.prompts[int(rollout.groups[image])]
        seen.add((image, step))
    assert len(seen) == 48


def test_a_replay_smaller_than_an_epoch_keeps_every_step(suite: Suite) -> None:
    run = make(suite, replay_size=24, batch_size=8, value_batch_size=8)
    run.update(run.rollout(0))
    assert len(replay_of(run).prompts) == 24
    assert replay_of(run).steps.unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("value_inputs", ["prompt", "latent"])
def test_the_gradient_is_that_of_the_loss_on_the_drawn_transitions(suite: Suite, value_inputs: str) -> None:
    """In chunks of 8, against one batch of 20 through the policy's own log-probs."""
    weights = {"reward_weight": 3.0, "kl_weight": 0.5}
    run = make(suite, batch_size=20, updates_per_epoch=1, value_batch_size=8, value_inputs=value_inputs, **weights)
    gradients = tiny.record_gradients(run)
    before = {name: value.clone() for name, value in run.policy.state_dict().items()}
    run.update(run.rollout(0))
    run.policy.load_state_dict(before)
    replay = replay_of(run)
    drawn = replay.take(replay.draw(20, run.learner.generator("dpok", 0, 0)))
    condition = run.policy.encode_prompts(drawn.prompts)
    latents, next_latents = drawn.latents.unbind(1)
    log_probs = run.policy.log_probs(latents, next_latents, drawn.steps, condition)
    timesteps = run.policy.schedule.timesteps[drawn.steps]
    noise = run.policy.predict(latents, timesteps, condition)
    reference = run.policy.predict(latents, timesteps, condition, weights="reference")
    value = run.algorithm._value  # type: ignore[attr-defined]
    inputs = condition["text"].mean(1)
    if value_inputs == "latent":
        inputs = torch.cat([latents.flatten(1), inputs], 1)
    advantages = drawn.rewards - unseen(value(inputs, drawn.steps).detach(), drawn.folds)
    loss = (-3.0 * advantages * (log_probs - drawn.log_probs).exp()).mean() + 0.5 * (noise - reference).square().mean()
    expected = torch.autograd.grad(loss, list(run.policy.trainable().values()))
    size = max(float(value.abs().max()) for value in expected)
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5 * size)


def test_state_survives_a_checkpoint(suite: Suite, tmp_path: Any) -> None:
    run = make(suite, batch_size=8, value_batch_size=8)
    run.update(run.rollout(0))
    torch.save(run.algorithm.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    restored = DPOK(run.plan.algorithm.config)
    restored.load_state_dict(state)
    again = restored.state_dict()
    assert again["replay"]["prompts"] == state["replay"]["prompts"]
    assert all(
        torch.equal(again["replay"][n], state["replay"][n]) for n in ("latents", "log_probs", "rewards", "steps")
    )
    networks = state["value"]["networks"]
    assert all(torch.equal(again["value"]["networks"][name], value) for name, value in networks.items())
    moments, saved = again["value"]["optimizer"]["state"], state["value"]["optimizer"]["state"]
    assert all(torch.equal(moments[i]["exp_avg"], saved[i]["exp_avg"]) for i in saved)


def test_the_kl_term_alone_holds_the_policy_at_the_reference(suite: Suite) -> None:
    """Without an advantage worth following, a strong KL weight leaves less noise difference than none."""
    errors = []
    for kl_weight in (0.0, 1e4):
        run = make(suite, kl_weight=kl_weight, updates_per_epoch=10, batch_size=16, value_batch_size=8, clip_range=0.5)
        errors.append(run.update(run.rollout(0))["noise_error"])
    assert errors[1] < errors[0] / 2
