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
from rfbench_algorithms.prdp import PRDP, PRDPConfig, prdp_loss
from tests import tiny


def naive_loss(
    log_probs: Tensor, old: Tensor, reference: Tensor, rewards: Tensor, groups: Tensor, beta: float, eps: float | None
) -> Tensor:
    """The paper's pair loss, pair by pair and step by step."""
    losses = []
    for i in range(len(groups)):
        for j in range(len(groups)):
            if groups[i] != groups[j] or not rewards[i] > rewards[j]:
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
        algorithms={"prdp": {"images_per_prompt": 4, "optimizer": {"learning_rate": 1e-3, "max_grad_norm": 1e9}}},
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
