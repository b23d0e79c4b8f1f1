"""Optimiser steps: which are taken and counted, how they are clipped, and what is said where nothing is learned."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.core.algorithm import Algorithm, Cost
from rfbench.core.learner import Learner
from rfbench.core.model import Model
from rfbench.core.rollout import Rollout
from rfbench.planning.plan import make_plan
from rfbench.plugins import registry
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.loading import load_suite
from tests import tiny

GAUSSIAN = ["epochs=2", "evaluation.every=2", "budget.reward_queries_per_epoch=8"]
DDPO = ["algorithms.ddpo.images_per_prompt=4", "algorithms.ddpo.config.updates_per_epoch=1"]


def test_no_clipping_is_called_off() -> None:
    steps = []
    for norm in ('"off"', "1e30", "1e-30"):
        set_norm = f"algorithms.ddpo.optimizer.max_grad_norm={norm}"
        run = tiny.make_run(make_plan(load_suite("optimum-gaussian", [*GAUSSIAN, set_norm, *DDPO]), "ddpo", seed=0))
        recorded = tiny.record_gradients(run)
        run.learner._optimizer.register_step_pre_hook(partial(_record, recorded))
        run.update(run.rollout(0))
        steps.append(recorded[-1])
    assert torch.equal(steps[0], steps[1])
    assert steps[2].norm() < 1e-29 < steps[0].norm()


def _record(recorded: list[torch.Tensor], optimizer: torch.optim.Optimizer, *_: Any) -> None:
    recorded.append(optimizer.param_groups[0]["params"][0].grad.clone())


class Idle(Algorithm):
    """Steps without a gradient in its second epoch: with no loss, or with a flat one."""

    way = "no loss"

    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        return Cost(0, 0)

    def update(self, rollout: Rollout, learner: Learner) -> dict[str, float]:
        if rollout.epoch == 0 or self.way == "flat":
            for chunk in learner.chunks(rollout):
                learner.backward(learner.log_probs(chunk).sum() * (1 if rollout.epoch == 0 else 0))
        learner.step()
        learner.step()
        return {}


@pytest.mark.parametrize("way", ["no loss", "flat"])
def test_a_step_without_a_gradient_is_not_taken(way: str) -> None:
    run = tiny.make_run(make_plan(load_suite("optimum-gaussian", [*GAUSSIAN, *DDPO]), "ddpo", seed=0))
    run.algorithm = Idle(None)
    run.algorithm.way = way
    before = _weights(run.policy.model)
    run.update(run.rollout(0))
    trained = _weights(run.policy.model)
    assert not torch.equal(before, trained)
    assert run.meter.counters.optimizer_steps == 1
    assert run.learner.had_gradient
    run.update(run.rollout(1))
    assert torch.equal(_weights(run.policy.model), trained)  # neither momentum nor weight decay
    assert run.meter.counters.optimizer_steps == 1
    assert not run.learner.had_gradient


def _weights(model: Model) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in model.denoiser.parameters()])


CONSTANT = '''
from rfbench.core.reward import Reward


class Constant(Reward):
    """Likes everything alike."""

    unit, version = "1", "1"

    def __init__(self, config, device):
        pass

    def __call__(self, images, prompts):
        return images.flatten(1).sum(1) * 0 + 1
'''


@pytest.mark.parametrize("label", ["prdp", "ddpo"])
def test_an_epoch_that_teaches_nothing_is_said(label: str, tmp_path: Path) -> None:
    file = tmp_path / "constant.py"
    file.write_text(CONSTANT)
    registry.add_file(file)
    group = f"algorithms.{label}.images_per_prompt=4"
    overrides = [*GAUSSIAN, group, "reward.name=constant", "algorithms.ddpo.config.updates_per_epoch=1"]
    progress = Quiet()
    train(make_plan(load_suite("optimum-gaussian", overrides), label, seed=0), tmp_path, progress)
    said = [note for note in progress.notes if "nothing was learned" in note]
    assert said == [
        f"epoch {epoch}: nothing was learned, since there was no gradient: every prompt's rewards are equal"
        for epoch in (1, 2)
    ]
