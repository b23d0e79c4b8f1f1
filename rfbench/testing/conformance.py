"""What every algorithm must pass: a conformance suite for the tests of a package:

    import pytest
    from rfbench.testing import CHECKS

    @pytest.mark.parametrize("check", CHECKS)
    def test_conformance(check, tmp_path):
        check("mine", tmp_path)

A check takes an algorithm's name, an empty folder, and ``key=value`` overrides of the suite it runs on, such as
``"algorithms.mine.optimizer.learning_rate=1e-3"``. It raises an ``AssertionError`` that says what was found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from rfbench.core.policy import POLICY, REFERENCE
from rfbench.core.processes import Processes
from rfbench.planning.plan import Plan, make_plan
from rfbench.records.format import EpochRecord
from rfbench.running.assembly import Run, make_run
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.loading import load_suite

START_TOLERANCE = 1e-5  # of a log-prob, in nats per latent dimension
CHUNK_TOLERANCE = 2e-3  # of a gradient, relative to its norm
IMPROVEMENT = 0.05  # of the expected reward on optimum-gaussian, a tenth of the rewards' standard deviation
SHORT = (  # two epochs in a few seconds
    "epochs=2",
    "sampler.num_steps=3",
    "sampler.skip_last_steps=1",
    "budget.reward_queries_per_epoch=16",
    "evaluation.every=1",
    "evaluation.held_out_rewards=[]",
    "evaluation.sets.seen.num_prompts=2",
    "evaluation.sets.unseen.num_prompts=2",
    "compute.device=cpu",
    "compute.chunk_size=16",
)


def runs_within_its_budget(algorithm: str, folder: Path, overrides: Sequence[str] = ()) -> None:
    """A run finishes, records every epoch and evaluation, and scores exactly the suite's budget.

    It spends no more network calls than ``cost`` declares.
    """
    plan = _plan(algorithm, overrides)
    path, epochs = train(plan, folder, Quiet()), plan.suite.epochs
    record, declared = _read(path), plan.epoch_cost()
    assert record["status"] == "finished"
    assert [row["epoch"] for row in _lines(path, "metrics")] == list(range(1, epochs + 1))
    assert {row["epoch"] for row in _lines(path, "evals")} == set(range(epochs + 1))
    counters = record["counters"]
    assert counters["reward_queries"] == epochs * plan.suite.budget.reward_queries_per_epoch
    assert counters["optimizer_steps"] >= epochs
    for name, most in (("denoiser_forwards", declared.forwards), ("denoiser_backwards", declared.backwards)):
        assert 0 < counters[name] <= epochs * most, f"{name} is {counters[name]}, and cost declares {epochs * most}"


def changes_the_policy_and_not_the_reference(algorithm: str, folder: Path, overrides: Sequence[str] = ()) -> None:
    """Updates move the policy's predictions and leave the reference's as they are.

    Two epochs of them: an algorithm may collect one epoch's images and learn in the next.
    """
    run = _run(_plan(algorithm, overrides))
    rollout = run.rollout(0)
    before = [_predicted_mean(run, rollout.prompts[0], weights) for weights in (POLICY, REFERENCE)]
    run.update(rollout)
    run.update(run.rollout(1))
    after = [_predicted_mean(run, rollout.prompts[0], weights) for weights in (POLICY, REFERENCE)]
    assert not torch.equal(before[0], after[0]), "the policy is the same after an update"
    assert torch.equal(before[1], after[1]), "the update changed the frozen reference"


def ratio_starts_at_one(algorithm: str, folder: Path, overrides: Sequence[str] = ()) -> None:
    """Before the first optimiser step, training log-probs equal those of sampling."""
    run = _run(_plan(algorithm, overrides))
    for epoch in range(2):
        run.update(run.rollout(epoch))
        error = run.learner.start_error
        if error is None:
            assert not run.algorithm.rollout_needs.trajectories, (
                f"epoch {epoch + 1}: no log-prob was compared with its sampled value; take them from "
                "learner.log_probs or learner.predict"
            )
        else:
            assert error < START_TOLERANCE, f"epoch {epoch + 1}: a log-prob is {error:.1e} off at the start"


def chunk_size_does_not_matter(algorithm: str, folder: Path, overrides: Sequence[str] = ()) -> None:
    """The first gradient is the same for another chunk size, to float tolerance."""
    whole, pieces = (_first_gradient(algorithm, [*overrides, f"compute.chunk_size={size}"]) for size in (16, 5))
    difference = float((whole - pieces).norm() / whole.norm())
    assert difference < CHUNK_TOLERANCE, f"chunks of 16 and of 5 give gradients that differ by {difference:.1e}"


def resumes_exactly(algorithm: str, folder: Path, overrides: Sequence[str] = ()) -> None:
    """A run that is stopped in its second epoch and resumed leaves the same records and weights as one that was not."""
    plan = _plan(algorithm, overrides)
    whole = train(plan, folder / "whole", Quiet())
    with suppress(KeyboardInterrupt):
        train(plan, folder / "stopped", _StopInSecondEpoch())
    resumed = train(plan, folder / "stopped", Quiet(), resume=True)
    for name in ("metrics", "evals"):
        assert _lines(whole, name) == _lines(resumed, name), f"{name}.jsonl differs after a resume"
    ours, theirs = _weights(whole), _weights(resumed)
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different, f"weights differ after a resume, the first {different[0]}: does state_dict hold all state?"


def improves_the_reward_on_optimum_gaussian(algorithm: str, folder: Path, overrides: Sequence[str] = ()) -> None:
    """Thirty epochs in the analytic world raise the exact expected reward.

    An algorithm that the suite does not list gets the learning rate and group size of those that it does.
    """
    listed = algorithm in load_suite("optimum-gaussian").algorithms
    table = f"algorithms.{algorithm}"
    common = [f"{table}.images_per_prompt=16", f"{table}.optimizer={{learning_rate=0.02, weight_decay=0.0}}"]
    settings = ["epochs=30", "evaluation.every=30", *([] if listed else common), *overrides]
    path = train(make_plan(load_suite("optimum-gaussian", settings), algorithm, seed=0), folder, Quiet())
    rewards = [record["mean"] for record in _lines(path, "evals") if record["measure"] == "expected_reward"]
    gained = rewards[-1] - rewards[0]
    assert gained > IMPROVEMENT, f"the expected reward went from {rewards[0]:.3f} to {rewards[-1]:.3f}"


CHECKS: tuple[Callable[..., None], ...] = (
    runs_within_its_budget,
    changes_the_policy_and_not_the_reference,
    ratio_starts_at_one,
    chunk_size_does_not_matter,
    resumes_exactly,
    improves_the_reward_on_optimum_gaussian,
)


class _StopInSecondEpoch(Quiet):
    """Interrupts a run after the second epoch's record, before its checkpoint."""

    def on_epoch(self, record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt


def _plan(algorithm: str, overrides: Sequence[str]) -> Plan:
    return make_plan(load_suite("tiny-shapes", [*SHORT, *overrides]), algorithm, seed=0)


def _run(plan: Plan) -> Run:
    return make_run(plan, Processes(plan.suite.compute))


def _predicted_mean(run: Run, prompt: str, weights: str) -> Tensor:
    """The first denoising step's mean at the origin."""
    latents, steps = torch.zeros(1, *run.policy.model.latent_shape), torch.tensor([0])
    with torch.no_grad():
        return run.policy.step_mean(latents, steps, run.policy.encode_prompts([prompt]), weights=weights)


def _first_gradient(algorithm: str, overrides: Sequence[str]) -> Tensor:
    """The gradient that the first optimiser step is taken with, flat."""
    plan, found = _plan(algorithm, overrides), []
    run = _run(plan)
    step = run.learner.step

    def note_then_step() -> None:
        gradients = (p.grad for p in run.policy.trainable().values())
        found.append(torch.cat([g.flatten().clone() for g in gradients if g is not None]))
        step()

    run.learner.step = note_then_step  # type: ignore[method-assign]
    for epoch in range(plan.suite.epochs):
        run.update(run.rollout(epoch))
        if found:  # an algorithm may collect images for a few epochs first
            assert math.isfinite(float(found[0].norm()))
            return found[0]
    raise AssertionError(f"no optimiser step in {plan.suite.epochs} epochs")


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def _lines(folder: Path, name: str) -> list[dict[str, Any]]:
    """Records without their durations."""
    records = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in record.items() if not key.endswith("seconds")} for record in records]


def _weights(folder: Path) -> dict[str, Tensor]:
    (newest,) = (folder / "checkpoints").iterdir()
    return load_file(newest / "weights.safetensors")
