"""PRDP's chunked gradient against autograd through the whole naive loss, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rfbench.core.rollout import Rollout
from rfbench.running.assembly import Run
from rfbench.suite.suite import Suite
from rfbench_algorithms.advantages import leave_one_out_mean
from rfbench_algorithms.prdp import PRDP, PRDPConfig, prdp_loss
from tests import tiny


def naive_loss(
    log_probs: Tensor, old: Tensor, reference: Tensor, rewards: Tensor, groups: Tensor, beta: float, eps: float | None
) -> Tensor:
    """The paper's pair loss, prompt by prompt, pair by pair and step by step."""
    of_prompts = [
        _naive_prompt_loss(*(x[groups == group] for x in (log_probs, old, reference, rewards)), beta, eps)
        for group in groups.unique()
    ]
    return torch.stack(of_prompts).mean()


def _naive_prompt_loss(
    log_probs: Tensor, old: Tensor, reference: Tensor, rewards: Tensor, beta: float, eps: float | None
) -> Tensor:
    losses = []
    for i in range(len(rewards)):
        for j in range(len(rewards)):
            if not rewards[i] > rewards[j]:
                continue
            target = (rewards[i] - rewards[j]) / beta
            steps = range(log_probs.shape[1])
            ratio = [log_probs[i, t] - reference[i, t] - log_probs[j, t] + reference[j, t] for t in steps]
            losses.append((sum(ratio) / len(ratio) - target) ** 2)
            if eps is not None:
                clipped = []
                for t in steps:
                    sides = [
                        torch.clip(log_probs[k, t] - reference[k, t], old[k, t] - reference[k, t] - eps,
                                   old[k, t] - reference[k, t] + eps)
                        for k in (i, j)
                    ]  # fmt: skip
                    clipped.append(sides[0] - sides[1])
                losses[-1] = torch.maximum(losses[-1], (sum(clipped) / len(clipped) - target) ** 2)
    return torch.stack(losses).mean() if losses else (log_probs * 0).sum()


@given(
    seed=st.integers(0, 10_000),
    groups=st.lists(st.integers(0, 2), min_size=1, max_size=7),
    levels=st.integers(1, 4),  # few reward levels: many ties
    eps=st.sampled_from([None, 1e-3, 0.05, 1.0]),
)
def test_loss_equals_the_papers_pair_by_pair(seed: int, groups: list[int], levels: int, eps: float | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = len(groups)
    old, reference = torch.randn(2, n, 3, generator=generator, dtype=torch.float64)
    log_probs = old + 0.05 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    rewards = torch.randint(levels, (n,), generator=generator).double()
    arguments = (old, reference, rewards, torch.tensor(groups), 2.0, eps)
    ours, naive = log_probs.clone().requires_grad_(), log_probs.clone().requires_grad_()
    result = prdp_loss(ours, *arguments)
    expected = naive_loss(naive, *arguments)
    result.loss.backward()
    expected.backward()
    torch.testing.assert_close(result.loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.grad, naive.grad, rtol=1e-12, atol=1e-12)
    same = [(i, j) for i in range(n) for j in range(i) if groups[i] == groups[j]]
    assert result.num_ties == sum(bool(rewards[i] == rewards[j]) for i, j in same)
    assert result.num_pairs == len(same) - result.num_ties
    assert result.num_tied_prompts == sum(len(rewards[arguments[3] == g].unique()) == 1 for g in set(groups))


def appendix_g(u: Tensor, u_clip: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """The loss of one prompt as the paper prints it: matrices of differences and `jnp.mean(..., where=...)`."""
    reward_diffs = rewards[:, None] - rewards[None, :]
    pred, pred_clip = u[:, None] - u[None, :], u_clip[:, None] - u_clip[None, :]
    loss = torch.maximum((pred - reward_diffs / beta) ** 2, (pred_clip - reward_diffs / beta) ** 2)
    return loss[reward_diffs > 0].mean()


@pytest.mark.parametrize("tied", [False, True])
def test_loss_equals_appendix_g_averaged_over_prompts(tied: bool) -> None:
    """With ties the mean over all pairs of the epoch is another number; without, the same."""
    generator = torch.Generator().manual_seed(3)
    old, reference = torch.randn(2, 12, 5, generator=generator, dtype=torch.float64)
    log_probs = old + 0.1 * torch.randn(12, 5, generator=generator, dtype=torch.float64)
    rewards = torch.randn(12, generator=generator, dtype=torch.float64)
    groups = torch.arange(3).repeat_interleave(4)
    if tied:
        rewards[1:4] = rewards[0] + torch.tensor([0.0, 0.0, 1.0])
    clipped = torch.clip(log_probs - reference, old - reference - 0.05, old - reference + 0.05)
    u, u_clip = (log_probs - reference).mean(1), clipped.mean(1)
    of_prompts = [appendix_g(u[groups == g], u_clip[groups == g], rewards[groups == g], 0.3) for g in range(3)]
    found = prdp_loss(log_probs, old, reference, rewards, groups, 0.3, 0.05).loss
    torch.testing.assert_close(found, torch.stack(of_prompts).mean(), rtol=1e-12, atol=0)
    pairs = torch.tensor([3.0 if tied else 6.0, 6.0, 6.0])
    over_all_pairs = (torch.stack(of_prompts) * pairs).sum() / pairs.sum()
    assert torch.isclose(found, over_all_pairs, rtol=1e-12) == (not tied)


@given(
    seed=st.integers(0, 10_000),
    num_prompts=st.integers(1, 4),
    per_prompt=st.integers(2, 6),
    beta=st.sampled_from([3e-5, 0.1, 10.0]),
    eps=st.sampled_from([None, 1e-6, 1e-3, 1.0]),
)
def test_at_one_update_the_gradient_is_leave_one_out_reinforce_on_the_kl_shaped_reward(
    seed: int, num_prompts: int, per_prompt: int, beta: float, eps: float | None
) -> None:
    """At the policy that sampled, whatever the clip; and without a clip at any policy, for its own u."""
    generator = torch.Generator().manual_seed(seed)
    n = num_prompts * per_prompt
    old, reference, moved = torch.randn(3, n, 3, generator=generator, dtype=torch.float64)
    rewards = torch.randn(n, generator=generator, dtype=torch.float64)
    groups = torch.arange(num_prompts).repeat_interleave(per_prompt)
    for log_probs in (old, moved) if eps is None else (old,):
        ours, theirs = log_probs.clone().requires_grad_(), log_probs.clone().requires_grad_()
        prdp_loss(ours, old, reference, rewards, groups, beta, eps).loss.backward()
        shaped = rewards - beta * (log_probs - reference).mean(1)
        advantages = shaped - leave_one_out_mean(shaped, groups)
        (-4 / beta * advantages * theirs.mean(1)).mean().backward()
        assert ours.grad is not None
        assert theirs.grad is not None
        scale = float(theirs.grad.abs().max())
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-11 * scale)


def test_where_the_clip_binds_it_is_not() -> None:
    """From the second update on PRDP is something else: pairs that the clipped branch wins have no gradient."""
    old, reference = torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    moved = torch.tensor([[0.1], [-0.1]], dtype=torch.float64, requires_grad=True)
    rewards = torch.tensor([1.0, 0.0], dtype=torch.float64)
    prdp_loss(moved, old, reference, rewards, torch.tensor([0, 0]), 1.0, 1e-3).loss.backward()
    assert moved.grad is not None
    assert moved.grad.tolist() == [[0.0], [0.0]]


def test_the_anchor_is_the_kl_terms_size_beside_the_rewards() -> None:
    """Three images: the rms over pairs of u's differences, times beta, over that of the rewards'."""
    u, rewards = torch.tensor([0.1, 0.3, -0.2], dtype=torch.float64), torch.tensor([2.0, 5.0, 4.0]).double()
    zeros = torch.zeros(3, 1, dtype=torch.float64)
    result = prdp_loss(u[:, None], zeros, zeros, rewards, torch.zeros(3, dtype=torch.long), 2.0, None)
    expected = 2.0 * math.sqrt(0.2**2 + 0.3**2 + 0.5**2) / math.sqrt(3**2 + 2**2 + 1**2)
    assert result.anchor == pytest.approx(expected, rel=1e-12)
    tied = prdp_loss(u[:, None], zeros, zeros, torch.ones(3).double(), torch.zeros(3, dtype=torch.long), 2.0, None)
    assert (tied.anchor, tied.num_tied_prompts, tied.num_ties) == (0.0, 1, 3)


def test_loss_is_zero_at_the_optimum() -> None:
    reference, rewards = torch.zeros(4, 3, dtype=torch.float64), torch.tensor([1.0, 2.0, 4.0, -1.0]).double()
    optimum = (rewards / 0.5)[:, None].expand(4, 3)  # log(pi*/pi_ref) = r / beta + a constant of the prompt
    assert prdp_loss(optimum, optimum, reference, rewards, torch.zeros(4), 0.5, 1e-3).loss == 0


@pytest.mark.parametrize("clip_range", [None, 1e-4])
def test_chunked_gradient_equals_autograd_through_everything(suite: Suite, clip_range: float | None) -> None:
    """K = 3 updates with clipping active: each update's gradient, in chunks of 5 pairs, against one backward."""
    suite = tiny.make_suite(
        suite.model.options["path"],
        suite.prompts["train"].options["path"],
        compute={"chunk_size": 5, "device": "cpu"},
        algorithms={"prdp": {"images_per_prompt": 4, "optimizer": {"learning_rate": 1e-4, "max_grad_norm": 1e9}}},
    )
    run = tiny.make_run(tiny.plan(suite))
    run.algorithm = PRDP(PRDPConfig(beta=0.01, clip_range=clip_range or "off", updates_per_epoch=3))
    rollout = _in_float64(run)

    gradients: list[list[Tensor]] = []
    naive_gradients: list[list[Tensor]] = []
    take_step = run.learner.step
    parameters = list(run.policy.trainable().values())
    clipped_pairs = []

    def compare_then_step() -> None:
        gradients.append([p.grad.clone() for p in parameters if p.grad is not None])
        log_probs = _all_log_probs_with_gradient(run, rollout)
        clipped_pairs.append(float(((log_probs - rollout.log_probs).abs() > (clip_range or math.inf)).double().mean()))
        loss = naive_loss(
            log_probs, rollout.log_probs, rollout.log_probs, rollout.rewards, rollout.groups, 0.01, clip_range
        )
        naive_gradients.append(list(torch.autograd.grad(loss, parameters)))
        take_step()

    run.learner.step = compare_then_step  # type: ignore[method-assign]
    run.update(rollout)
    assert len(gradients) == 3
    assert clip_range is None or max(clipped_pairs) > 0.05  # the clip did bind
    for ours, naive in zip(gradients, naive_gradients, strict=True):
        difference = torch.cat([(a - b).flatten() for a, b in zip(ours, naive, strict=True)]).norm()
        size = torch.cat([b.flatten() for b in naive]).norm()
        assert size > 0
        assert difference / size < 1e-9


def _in_float64(run: Run) -> Rollout:
    """The first epoch's rollout, with a tie, and from here on everything in float64."""
    rollout = run.rollout(0)
    rollout.rewards[1] = rollout.rewards[0]
    assert rollout.latents is not None
    rollout.latents = rollout.latents.double()
    rollout.condition = {name: value.double() for name, value in rollout.condition.items()}
    rollout.rewards, rollout.log_probs = rollout.rewards.double(), rollout.log_probs.double()
    run.policy.denoiser.double()
    rollout.log_probs = run.learner.all_log_probs(rollout)
    rollout.reference_log_probs = rollout.log_probs.clone()
    return rollout


def _all_log_probs_with_gradient(run: Run, rollout: Rollout) -> Tensor:
    """Every (image, step) log-prob in one graph, one network call a step."""
    policy, schedule = run.policy, run.policy.schedule
    columns, latents = [], rollout.latents
    assert latents is not None
    for step in schedule.objective_steps:
        steps = step.repeat(rollout.num_images)
        condition = {name: value[rollout.groups] for name, value in rollout.condition.items()}
        columns.append(policy.log_probs(latents[:, step], latents[:, step + 1], steps, condition))
    return torch.stack(columns, dim=1)
