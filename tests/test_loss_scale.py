"""fp16: large losses reach the weights, and every optimiser step that is dropped is said."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rfbench.running.assembly import Run
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Suite
from tests import tiny

pytestmark = pytest.mark.slow  # most CPUs only emulate fp16


@pytest.fixture
def half(suite: Suite) -> Suite:
    return Suite.model_validate(
        suite.model_dump() | {"compute": {"chunk_size": 16, "device": "cpu", "precision": "fp16"}}
    )


def gradient(run: Run, sizes: tuple[float, float]) -> Tensor:
    """That of one step on two chunks, whose losses are multiplied by ``sizes``, as the optimiser gets it."""
    rollout = run.rollout(0)
    run.learner.begin(rollout)
    for size, chunk in zip(sizes, run.learner.chunks(rollout), strict=False):
        run.learner.backward(size * run.learner.log_probs(chunk).square().mean())
    seen: list[Tensor] = []
    run.learner._optimizer.register_step_pre_hook(
        lambda optimizer, *_: seen.extend(p.grad.flatten() for p in optimizer.param_groups[0]["params"])
    )
    run.learner.step()
    assert (run.learner.steps, run.learner.dropped_steps) == (1, 0)
    return torch.cat(seen)


@pytest.mark.parametrize("sizes", [(1e8, 1e8), (1.0, 1e8), (1e8, 1.0), (2.0, 1e5)])
def test_losses_of_any_size_give_the_gradient_that_fp32_gives(
    suite: Suite, half: Suite, sizes: tuple[float, float]
) -> None:
    """A loss of 1e8, as beta = 3e-6 gives: with the loss scale alone, all of these steps overflow."""
    found, exact = (gradient(tiny.make_run(tiny.plan(each)), sizes) for each in (half, suite))
    norm = min(1.0, float(exact.norm()))  # both are clipped to 1
    assert float(found.norm()) == pytest.approx(norm, rel=0.02)
    assert torch.nn.functional.cosine_similarity(found, exact, dim=0) > 0.999


def test_small_losses_are_left_alone(half: Suite) -> None:
    run = tiny.make_run(tiny.plan(half))
    run.learner.begin(run.rollout(0))
    run.learner.backward(0.5 * run.learner.log_probs(next(run.learner.chunks(run.rollout(0)))).mean())
    assert run.learner._shrinking == 1


def test_every_dropped_step_is_said(half: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale that overflows in all three epochs of two steps."""
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**100))
    progress = Quiet()
    train(tiny.plan(half), tmp_path, progress)
    said = [note for note in progress.notes if "dropped" in note]
    assert said == [
        f"epoch {epoch}: 2 of 2 optimiser steps were dropped, since their fp16 gradients overflowed; the loss scale is "
        f"{2.0 ** (100 - 2 * epoch):g} now"
        for epoch in (1, 2, 3)
    ]
