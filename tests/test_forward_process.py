"""The forward-process family: transcriptions of the official losses, what they share, and its invariances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rfbench.errors import InputError
from rfbench.planning import plan
from rfbench.suite.suite import Suite
from rfbench_algorithms import advantages as our_advantages
from rfbench_algorithms.awm import matching_error
from rfbench_algorithms.crd import residuals
from rfbench_algorithms.dpo import dpo_loss, extremes
from rfbench_algorithms.forward_process import goodness, noised, normalised_error
from rfbench_algorithms.nft import nft_loss
from rfbench_algorithms.policy_gradient import clipped_surrogate
from tests import tiny
from tests.runs import assert_same_run, exit_code_of_killed, run

FAMILY = ("nft", "awm", "crd", "dpo")
SHAPE = (6, 3, 4)
GROUPS = torch.tensor([0, 0, 0, 1, 1, 1])


class Flow:
    """Random x_0, noise, t and velocities of a rectified flow: the coordinates that the official code is written in."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(3)
        self.clean, noise, self.old, change = (
            torch.randn(SHAPE, generator=draw, dtype=torch.float64) for _ in range(4)
        )
        self.velocity = (self.old + 0.1 * change).requires_grad_()
        self.t = torch.rand(SHAPE[0], generator=draw, dtype=torch.float64) * 0.8 + 0.1
        self.target = noise - self.clean
        t = self.t[:, None, None]
        self.latents = (1 - t) * self.clean + t * noise
        self.rewards = torch.randn(SHAPE[0], generator=draw, dtype=torch.float64)

    def predicted(self, velocity: Tensor) -> Tensor:
        """x_0 that a velocity means."""
        return self.latents - self.t[:, None, None] * velocity


@pytest.fixture
def flow() -> Flow:
    return Flow()


def gradient(flow: Flow, loss: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, flow.velocity, retain_graph=True)
    return found


def advantages(rewards: Tensor) -> Tensor:
    """DiffusionNFT's code: the prompt's mean, the standard deviation of all, clamped at 5."""
    found = torch.empty_like(rewards)
    for group in (0, 1):
        members = group == GROUPS
        found[members] = (rewards[members] - rewards[members].mean()) / (rewards.std(correction=0) + 1e-4)
    return found.clamp(-5, 5)


def official_nft(flow: Flow, beta: float) -> Tensor:
    """train_nft_sd3.py: its loss without the KL, the mean over the batch."""
    t = flow.t[:, None, None]
    r = torch.clamp(advantages(flow.rewards) / 5 / 2 + 0.5, 0, 1)

    def error(velocity: Tensor) -> Tensor:
        restored = flow.latents - t * velocity
        with torch.no_grad():
            weight = (restored - flow.clean).abs().mean(dim=(1, 2), keepdim=True).clip(min=1e-5)
        return ((restored - flow.clean) ** 2 / weight).mean(dim=(1, 2))

    positive = error(beta * flow.velocity + (1 - beta) * flow.old)
    negative = error((1 + beta) * flow.old - beta * flow.velocity)
    return 5 * (r * positive / beta + (1 - r) * negative / beta).mean()


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_nft_is_the_official_loss(flow: Flow, beta: float) -> None:
    good = goodness(our_advantages.advantages(flow.rewards, GROUPS, "group-mean", 5.0, 1e-4), 5.0)
    ours = 5 * nft_loss(flow.predicted(flow.velocity), flow.predicted(flow.old), flow.clean, good, beta).mean()
    theirs = official_nft(flow, beta)
    assert torch.allclose(ours, theirs, rtol=1e-9)
    assert torch.allclose(gradient(flow, ours), gradient(flow, theirs), rtol=1e-9)


def official_awm(flow: Flow, clip: float) -> Tensor:
    """train_sd3_awm.py: log-probs "ghuber" in float64, the PPO loss on them."""
    advantage = advantages(flow.rewards) / 5

    def log_prob(velocity: Tensor) -> Tensor:
        error = ((velocity - flow.target) ** 2).mean(dim=(1, 2))
        return -((error + 1e-10) ** 0.25 - 1e-10**0.25) * flow.t / 0.25

    ratio = torch.exp(log_prob(flow.velocity) - log_prob(flow.old))
    return torch.maximum(-advantage * ratio, -advantage * torch.clamp(ratio, 1 - clip, 1 + clip)).mean()


@pytest.mark.parametrize("clip", [1.0, 1e-3])
def test_awm_is_the_official_loss(flow: Flow, clip: float) -> None:
    errors, old = (
        matching_error(flow.predicted(velocity), flow.clean, flow.t, "huber") for velocity in (flow.velocity, flow.old)
    )
    ours, theirs = clipped_surrogate(-errors, -old, advantages(flow.rewards) / 5, clip).mean(), official_awm(flow, clip)
    assert torch.allclose(ours, theirs, rtol=1e-9)
    assert torch.allclose(gradient(flow, ours), gradient(flow, theirs), rtol=1e-9)


def test_awm_weights_by_the_velocitys_error_as_its_equation_does(flow: Flow) -> None:
    found = matching_error(flow.predicted(flow.velocity), flow.clean, flow.t, "velocity")
    assert torch.allclose(found, ((flow.velocity - flow.target) ** 2).mean(dim=(1, 2)), rtol=1e-9)


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_crd_is_the_official_loss(flow: Flow, beta: float) -> None:
    """trainers/crd.py, uniform centring: written whole there, by its derivatives here."""
    judged = torch.clamp(advantages(flow.rewards) / 5 / 2 + 0.5, 0, 1)
    errors, old = (normalised_error(flow.predicted(v), flow.clean) for v in (flow.velocity, flow.old))
    implicit = -(errors - old)
    centre = torch.stack([implicit[g == GROUPS].mean().detach() for g in GROUPS.tolist()])
    judged_centre = torch.stack([judged[g == GROUPS].mean() for g in GROUPS.tolist()])
    theirs = 5 / beta * ((beta * (implicit - centre) - (judged - judged_centre)) ** 2).mean()
    missed = residuals(implicit.detach(), judged, GROUPS, beta)
    assert torch.allclose(5 / beta * missed.square().mean(), theirs, rtol=1e-9)
    ours = (-2 * 5 * missed * errors).mean()
    assert torch.allclose(gradient(flow, ours), gradient(flow, theirs), rtol=1e-9)


def test_dpo_is_the_published_loss() -> None:
    draw = torch.Generator().manual_seed(1)
    win, win_ref, lose, lose_ref = torch.rand(4, 8, generator=draw, dtype=torch.float64)
    theirs = -torch.log(torch.sigmoid(-0.5 * 30.0 * ((win - win_ref) - (lose - lose_ref))))
    assert torch.allclose(dpo_loss(win - win_ref, lose - lose_ref, 30.0), theirs, rtol=1e-9)


def test_at_the_old_policy_all_are_advantage_weighted_matching(flow: Flow) -> None:
    """NFT, AWM with the same weighting, and CRD: gradients in the direction of the mean of A e."""
    flow.velocity = flow.old.clone().requires_grad_()
    errors = normalised_error(flow.predicted(flow.velocity), flow.clean)
    old, advantage = errors.detach(), advantages(flow.rewards)
    expected = gradient(flow, (advantage * errors).mean())
    good = goodness(our_advantages.advantages(flow.rewards, GROUPS, "group-mean", 5.0, 1e-4), 5.0)
    nft = 5 * nft_loss(flow.predicted(flow.velocity), flow.predicted(flow.old), flow.clean, good, 0.7)
    awm = clipped_surrogate(-errors, -old, advantage / 5, 1.0)
    missed = residuals(torch.zeros_like(good), good, GROUPS, 1.0)
    crd = -2 * 5 * missed * normalised_error(flow.predicted(flow.velocity), flow.clean)
    for loss, factor in ((nft, 1.0), (awm, 1 / 5), (crd, 1.0)):
        assert torch.allclose(gradient(flow, loss.mean()), factor * expected, rtol=1e-9)


def test_extremes_leave_out_a_prompt_without_a_preference() -> None:
    rewards, groups = torch.tensor([1.0, 3.0, 3.0, 2.0, 2.0, 5.0, 4.0]), torch.tensor([0, 0, 0, 1, 1, 2, 2])
    best, worst = extremes(rewards, groups)
    assert torch.nonzero(best).flatten().tolist() == [1, 5]
    assert torch.nonzero(worst).flatten().tolist() == [0, 6]


def _noised(suite: Suite, chunk_size: int, draws: int, **options: Any) -> dict[tuple[int, int], tuple[Tensor, int]]:
    """x_t and t of every image and draw."""
    compute = suite.compute.model_copy(update={"chunk_size": chunk_size})
    made = tiny.make_run(tiny.plan(suite.model_copy(update={"compute": compute}), "rwr"))
    found = {}
    for at in noised(made.rollout(0), made.learner, draws, **options):
        for row, image in enumerate(at.images.tolist()):
            found[image, at.draw] = (at.latents[row], int(at.timesteps[row]))
    return found


def test_noise_and_levels_do_not_depend_on_chunks(suite: Suite) -> None:
    few, many = _noised(suite, 3, 2), _noised(suite, 8, 2)
    assert few.keys() == many.keys()
    assert len(few) == 2 * suite.budget.reward_queries_per_epoch
    assert all(torch.allclose(few[key][0], many[key][0], atol=1e-4) and few[key][1] == many[key][1] for key in few)


def test_with_as_many_draws_as_steps_every_level_comes_once(suite: Suite) -> None:
    made = tiny.make_run(tiny.plan(suite, "rwr"))
    steps = made.policy.schedule.timesteps[made.policy.schedule.objective_steps].tolist()
    found = _noised(suite, 8, len(steps))
    for image in range(suite.budget.reward_queries_per_epoch):
        assert sorted(level for (i, _), (_, level) in found.items() if i == image) == sorted(steps)


def test_images_of_a_prompt_share_noise_levels_where_asked(suite: Suite) -> None:
    levels = {key: level for key, (_, level) in _noised(suite, 8, 2, shared=True).items()}
    images = suite.algorithms["rwr"].images_per_prompt
    assert all(levels[image, draw] == levels[image - image % images, draw] for image, draw in levels)


@pytest.fixture
def listed(suite: Suite) -> Callable[..., Suite]:
    """The suite with a table of one algorithm."""

    def make(label: str, **table: Any) -> Suite:
        tables = {label: {"images_per_prompt": 4, "optimizer": {"learning_rate": 1e-3}} | table}
        return Suite.model_validate(suite.model_dump() | {"algorithms": tables})

    return make


@pytest.mark.parametrize("label", FAMILY)
def test_the_dry_run_counts_what_a_run_spends(listed: Callable[..., Suite], label: str) -> None:
    made = tiny.make_run(tiny.plan(listed(label), label))
    before = made.counters()
    made.update(made.rollout(0))
    counted, told = made.counters(), made.plan.epoch_cost()
    assert counted.denoiser_forwards - before.denoiser_forwards == told.forwards
    assert counted.denoiser_backwards == told.backwards


@pytest.mark.slow
def test_killed_and_resumed_equals_never_stopped(listed: Callable[..., Suite], tmp_path: Path) -> None:
    """With a lag, so that the old policy is a third set of weights; images come from it."""
    label = "crd"
    suite = listed(label, sample_from="old", config={"old_decay_slope": 0.3, "old_decay_max": 0.5})
    whole = run(suite, tmp_path / "whole", label)
    assert exit_code_of_killed("between the rename and the clean-up", suite, tmp_path / "killed", label) == -9
    assert_same_run(run(suite, tmp_path / "killed", label, resume=True), whole)


def test_the_old_policy_lags(listed: Callable[..., Suite]) -> None:
    made = tiny.make_run(tiny.plan(listed("nft", config={"old_decay_slope": 0.5, "old_decay_max": 0.9}), "nft"))
    start = {name: value.clone() for name, value in made.policy.state_dict().items()}
    made.update(made.rollout(0))  # decay 0
    first = {name: value.clone() for name, value in made.policy.state_dict().items()}
    old = made.policy.snapshots()["old"]
    assert all(torch.equal(old[name], first[name]) for name in old)
    assert any(not torch.equal(start[name], first[name]) for name in start)
    made.update(made.rollout(1))  # decay 0.5
    second = made.policy.state_dict()
    assert all(torch.allclose(old[name], (first[name] + second[name]) / 2, atol=1e-7) for name in old)


def test_a_snapshot_predicts_with_its_own_weights_and_leaves_the_policys(listed: Callable[..., Suite]) -> None:
    made = tiny.make_run(tiny.plan(listed("nft"), "nft"))
    policy, rollout = made.policy, made.rollout(0)
    latents, timesteps = rollout.clean_latents[:2], torch.tensor([5, 500])
    condition = policy.encode_prompts([rollout.prompts[0]] * 2)
    policy.take_snapshot("old")
    before = policy.predict(latents, timesteps, condition)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.01)
    after = policy.predict(latents, timesteps, condition)
    kept = policy.predict(latents, timesteps, condition, weights="old")
    assert torch.equal(kept, before)
    assert not kept.requires_grad
    assert torch.equal(policy.predict(latents, timesteps, condition), after)
    assert not torch.equal(before, after)
    after.sum().backward()  # through the policy's own weights, though a snapshot was lent in between
    assert all(parameter.grad is not None for parameter in policy.trainable().values())


@pytest.mark.parametrize(
    ("label", "table", "message"),
    [
        ("prdp", {"sample_from": "old"}, "sample_from is 'old', but prdp keeps no such copy of the policy"),
        ("awm", {"config": {"updates_per_epoch": 5}}, "an epoch has 3 prompts, which they share"),
        ("crd", {"images_per_prompt": 1}, "needs at least 2 images per prompt"),
    ],
)
def test_what_cannot_work_is_refused(
    listed: Callable[..., Suite], label: str, table: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan.make_plan(listed(label, **table), label, seed=0)
