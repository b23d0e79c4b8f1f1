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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

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
    run, epochs, declared = _whole_run(plan, folder), plan.suite.epochs, plan.epoch_cost()
    assert run.record["status"] == "finished"
    assert [row["epoch"] for row in run.lines["metrics"]] == list(range(1, epochs + 1))
    assert {row["epoch"] for row in run.lines["evals"]} == set(range(epochs + 1))
    counters = run.record["counters"]
    assert counters["reward_queries"] == epochs * plan.suite.budget.reward_queries_per_epoch
    assert counters["optimizer_steps"] >= epochs
    for name, most in (("denoiser_forwards", declared.forwards), ("denoiser_backwards", declared.backwards)):
        assert 0 < counters[name] <= epochs * most, f"{name} is {counters[name]}, and cost declares {epochs * most}"


def changes_the_policy_and_not_the_reference(algorithm: str, folder: Path, overrides: Sequence[str] = ()) -> None:
    """Updates move the policy's predictions and leave the reference's as they are.

    Two epochs of them: an algorithm may collect one epoch's images and learn in the next.
    """
    updates = _two_updates(_plan(algorithm, overrides))
    assert not torch.equal(updates.before[0], updates.after[0]), "the policy is the same after an update"
    assert torch.equal(updates.before[1], updates.after[1]), "the update changed the frozen reference"


def ratio_starts_at_one(algorithm: str, folder: Path, overrides: Sequence[str] = ()) -> None:
    """Before the first optimiser step, training log-probs equal those of sampling."""
    updates = _two_updates(_plan(algorithm, overrides))
    for epoch, error in enumerate(updates.start_errors, start=1):
        if error is None:
            assert not updates.stores_trajectories, (
                f"epoch {epoch}: no log-prob was compared with its sampled value; take them from "
                "learner.log_probs or learner.predict"
            )
        else:
            assert error < START_TOLERANCE, f"epoch {epoch}: a log-prob is {error:.1e} off at the start"


def chunk_size_does_not_matter(algorithm: str, folder: Path, overrides: Sequence[str] = ()) -> None:
    """The first gradient is the same for another chunk size, to float tolerance."""
    plans = [_plan(algorithm, [*overrides, f"compute.chunk_size={size}"]) for size in (16, 5)]
    whole, pieces = _two_updates(plans[0]).gradient, _updates(plans[1], until_a_step=True).gradient
    assert whole is not None, f"no optimiser step in {plans[0].suite.epochs} epochs"
    assert pieces is not None, f"no optimiser step in {plans[1].suite.epochs} epochs"
    assert math.isfinite(float(whole.norm()))
    assert math.isfinite(float(pieces.norm()))
    difference = float((whole - pieces).norm() / whole.norm())
    assert difference < CHUNK_TOLERANCE, f"chunks of 16 and of 5 give gradients that differ by {difference:.1e}"


def resumes_exactly(algorithm: str, folder: Path, overrides: Sequence[str] = ()) -> None:
    """A run that is stopped in its second epoch and resumed leaves the same records and weights as one that was not."""
    plan = _plan(algorithm, overrides)
    whole = _whole_run(plan, folder)
    for path, content in whole.in_second_epoch.items():
        (folder / "stopped" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "stopped" / path).write_bytes(content)
    resumed = train(plan, folder / "stopped", Quiet(), resume=True)
    for name in ("metrics", "evals"):
        assert whole.lines[name] == _lines(resumed, name), f"{name}.jsonl differs after a resume"
    ours, theirs = whole.weights, _weights(resumed)
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


@dataclass
class _Whole:
    """What a run left that nothing disturbed.

    Attributes:
        in_second_epoch: its files by their path under the root, as they were after the second epoch's record and
            before its checkpoint: a run that is killed there leaves them.
    """

    record: dict[str, Any]
    lines: dict[str, list[dict[str, Any]]]
    weights: dict[str, Tensor]
    in_second_epoch: dict[Path, bytes]


@dataclass
class _Updates:
    """What was seen of a run's first updates: predictions of policy and reference, and the first step's gradient."""

    stores_trajectories: bool
    before: list[Tensor]
    after: list[Tensor] = field(default_factory=list)
    start_errors: list[float | None] = field(default_factory=list)
    gradient: Tensor | None = None


class _NoteSecondEpoch(Quiet):
    """Reads the files under ``root`` in a run's second epoch."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root, self.files = root, dict[Path, bytes]()

    def on_epoch(self, record: EpochRecord) -> None:
        if record.epoch == 2:
            paths = [path for path in self._root.rglob("*") if path.is_file()]
            self.files = {path.relative_to(self._root): path.read_bytes() for path in paths}


_Made = TypeVar("_Made")
_last: dict[Callable[..., Any], tuple[Any, Any]] = {}


def _shared(make: Callable[..., _Made], plan: Plan, *arguments: Any) -> _Made:
    """What ``make`` gives for ``plan``, made once for the checks of one algorithm that follow one another."""
    key = (plan.label, plan.algorithm.cls, plan.suite)
    if make not in _last or _last[make][0] != key:
        _last.pop(make, None)
        _last[make] = key, make(plan, *arguments)
    return _last[make][1]


def _whole_run(plan: Plan, folder: Path) -> _Whole:
    return _shared(_run_whole, plan, folder)


def _run_whole(plan: Plan, folder: Path) -> _Whole:
    note = _NoteSecondEpoch(folder / "whole")
    path = train(plan, folder / "whole", note)
    lines = {name: _lines(path, name) for name in ("metrics", "evals")}
    return _Whole(_read(path), lines, _weights(path), note.files)


def _two_updates(plan: Plan) -> _Updates:
    return _shared(_updates, plan)


def _updates(plan: Plan, until_a_step: bool = False) -> _Updates:
    """Those of every epoch, of two at least; or of as many as it takes to the first optimiser step."""
    run = make_run(plan, Processes(plan.suite.compute))
    found = _Updates(run.algorithm.rollout_needs.trajectories, before=[])
    step = run.learner.step

    def note_then_step() -> None:
        if found.gradient is None:
            gradients = (p.grad for p in run.policy.trainable().values())
            found.gradient = torch.cat([g.flatten().clone() for g in gradients if g is not None])
        step()

    run.learner.step = note_then_step  # type: ignore[method-assign]
    for epoch in range(max(2, plan.suite.epochs)):
        rollout = run.rollout(epoch)
        if epoch == 0:
            prompt = rollout.prompts[0]
            found.before = [_predicted_mean(run, prompt, weights) for weights in (POLICY, REFERENCE)]
        run.update(rollout)
        found.start_errors.append(run.learner.start_error)
        if until_a_step and found.gradient is not None:
            break
    found.after = [_predicted_mean(run, prompt, weights) for weights in (POLICY, REFERENCE)]
    return found


def _plan(algorithm: str, overrides: Sequence[str]) -> Plan:
    return make_plan(load_suite("tiny-shapes", [*SHORT, *overrides]), algorithm, seed=0)


def _predicted_mean(run: Run, prompt: str, weights: str) -> Tensor:
    """The first denoising step's mean at the origin."""
    latents, steps = torch.zeros(1, *run.policy.model.latent_shape), torch.tensor([0])
    with torch.no_grad():
        return run.policy.step_mean(latents, steps, run.policy.encode_prompts([prompt]), weights=weights)


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def _lines(folder: Path, name: str) -> list[dict[str, Any]]:
    """Records without their durations."""
    records = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in record.items() if not key.endswith("seconds")} for record in records]


def _weights(folder: Path) -> dict[str, Tensor]:
    (newest,) = (folder / "checkpoints").iterdir()
    return load_file(newest / "weights.safetensors")
