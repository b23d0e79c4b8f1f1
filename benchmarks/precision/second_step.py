"""Where an algorithm's epoch stands before its second optimiser step: the first at which a clip can bind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from rfbench.core.algorithm import Algorithm
from rfbench.core.learner import Chunk, Learner
from rfbench.core.processes import Runtime
from rfbench.core.rollout import Rollout
from rfbench.errors import InputError
from rfbench.running.assembly import Run
from rfbench_algorithms.policy_gradient import PolicyGradient, clipped_surrogate
from rfbench_algorithms.prdp import PRDP, prdp_loss

OLD = "sampled"  # the snapshot of the policy that sampled


@dataclass
class SecondStep:
    """A policy after its epoch's first step, and what its second one is about.

    Attributes:
        rollout: the epoch's images, sampled and scored before the first step.
        where: ``(images, steps)`` bool, the pairs of the second step.
        coefficients: from the log-ratios to the policy that sampled and to the reference, ``(images, steps)`` float64
            each, to the loss's derivative by every log-prob.
        clip_range: of a log-ratio's (PRDP) or a ratio's (DDPO) distance from where it started.
        outside: from log-ratios to which of them are beyond the clip range.
    """

    rollout: Rollout
    where: Tensor
    coefficients: Callable[[Tensor, Tensor], Tensor]
    clip_range: float
    outside: Callable[[Tensor], Tensor]


class _StoppedError(Exception):
    """Ends an update before its second step; ``where`` is what that one asked for."""

    def __init__(self, where: Tensor | None) -> None:
        super().__init__()
        self.where = where


class _OneStep(Learner):
    """A learner that lets an update take one optimiser step."""

    def chunks(self, rollout: Rollout, where: Tensor | None = None) -> Iterator[Chunk]:
        return self._stop(where) if self.steps else super().chunks(rollout, where)

    def _stop(self, where: Tensor | None) -> NoReturn:
        raise _StoppedError(where)


def second_step(run: Run, epoch: int) -> SecondStep:
    """Samples ``epoch`` and takes the algorithm's own first step on it; ``OLD`` is the policy before it.

    The step is from the moments of the run's optimiser, which stay as they are.
    """
    plan, policy = run.plan, run.learner.policy
    policy.take_snapshot(OLD)
    rollout = run.rollout(epoch)
    learner = _OneStep(
        policy,
        plan.settings.optimizer,
        Runtime(run.processes, run.meter, plan.suite.compute.pairs_per_call, plan.seed),
    )
    learner.load_state_dict(deepcopy(run.learner.state_dict()))
    learner.begin(rollout)
    try:
        plan.algorithm.make().update(rollout, learner)
    except _StoppedError as stopped:
        where = torch.ones(rollout.log_probs.shape, dtype=torch.bool) if stopped.where is None else stopped.where
    else:
        raise InputError(
            f"{plan.label} takes one optimiser step an epoch, at which no clip can bind; use "
            f"--set algorithms.{plan.label}.config.updates_per_epoch=2 or more"
        )
    return _described(plan.algorithm.make(), plan.label, rollout, where)


def _described(algorithm: Algorithm, label: str, rollout: Rollout, where: Tensor) -> SecondStep:
    clip_range = algorithm.clip_range
    if clip_range is None:
        raise InputError(f"algorithms.{label}.config.clip_range is 'off': there are no clip decisions; give a number")
    if isinstance(algorithm, PRDP):
        return SecondStep(
            rollout,
            where,
            lambda old, reference: _of_prdp(algorithm, rollout, old, reference),
            clip_range,
            lambda old: old.abs() > clip_range,
        )
    assert isinstance(algorithm, PolicyGradient), label
    advantages = algorithm.image_advantages(rollout)
    return SecondStep(
        rollout,
        where,
        lambda old, reference: _of_surrogate(old, advantages, where, clip_range),
        clip_range,
        lambda old: (old.exp() - 1).abs() > clip_range,
    )


def _of_prdp(algorithm: PRDP, rollout: Rollout, old: Tensor, reference: Tensor) -> Tensor:
    log_ratios = old.clone().requires_grad_()
    loss = prdp_loss(
        log_ratios,
        torch.zeros_like(old),
        old - reference,
        rollout.rewards.double(),
        rollout.groups,
        algorithm.config.beta,
        algorithm.clip_range,
    ).loss
    return torch.autograd.grad(loss, log_ratios)[0]


def _of_surrogate(old: Tensor, advantages: Tensor, where: Tensor, clip_range: float) -> Tensor:
    log_ratios = old.clone().requires_grad_()
    rows = advantages[:, None].to(old).expand_as(old)
    losses = clipped_surrogate(log_ratios, torch.zeros_like(old), rows, clip_range)
    return torch.autograd.grad(losses[where].mean(), log_ratios)[0]
