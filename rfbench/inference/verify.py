"""Whether a recorded run can be repeated: its first epochs, run again, beside what its records say.

On the machine that made them, with the same versions, the numbers are the same to the last digit. Elsewhere sums differ
in their last bits, and those differences grow from epoch to epoch, where one falls on the other side of a clip: there
the curves agree within a tolerance. Between AVX-512 and AVX2 kernels, four epochs moved DDPO by 0.15 tolerances and the
others by less; a fifth and sixth moved DDPO by 1.1.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rfbench.core.meter import Meter
from rfbench.errors import InputError
from rfbench.planning.plan import Plan, make_outline, make_plan
from rfbench.records.format import EpochRecord, EvaluationRecord
from rfbench.running.folder import RunFolder, run_path
from rfbench.running.progress import Progress
from rfbench.running.resume import check_repeatable
from rfbench.running.trainer import train
from rfbench.suite.loading import suite_of
from rfbench.suite.suite import TrackerSettings

METRICS = ("reward_mean", "reward_std_within_prompt", "grad_norm")
REWARD_TOLERANCE = 0.002  # of the training reward, relative to the largest value of its curve
TOLERANCE = 0.05  # of spreads, norms, the KL, and other measures, which may count attributes

Curves = dict[str, list[float]]


class Deviation(NamedTuple):
    """Where a curve is farthest from the one that it should follow; ``tolerances``: how far, in its tolerance."""

    quantity: str
    point: int
    stored: float
    found: float
    tolerances: float


@dataclass(frozen=True)
class Verification:
    """The first epochs of a run, repeated.

    Attributes:
        epochs: how many were repeated.
        numbers: of the records of those epochs, seconds apart.
        different: how many of them differ in any digit.
        deviations: of each curve, the point that is farthest off; the worst curve first.
    """

    epochs: int
    numbers: int
    different: int
    deviations: list[Deviation]

    @property
    def agrees(self) -> bool:
        """Whether every curve is within its tolerance."""
        return all(deviation.tolerances <= 1 for deviation in self.deviations)


def verify(path: Path, epochs: int, progress: Progress, overrides: Sequence[str] = ()) -> Verification:
    """Repeats the first epochs of the run in ``path``, in a folder that is removed again.

    Args:
        path: a run's folder; it is read only.
        epochs: to repeat, with every evaluation that was made up to there.
        overrides: of the run's suite, for what this machine needs, such as paths; they must not change the experiment.

    Raises:
        InputError: where settings, plugins, files or rewards are not those of the record, or there are fewer epochs.
    """
    folder = RunFolder(path, writer=False)
    record, metrics, evals = folder.require_run(), folder.read("metrics"), folder.read("evals")
    if not 1 <= epochs <= len(metrics):
        raise InputError(f"--epochs is {epochs}, but {path} records {len(metrics)} epochs")
    suite = suite_of(record.suite, overrides, f"of {path}")
    check_repeatable(record, make_outline(suite, record.variant, record.seed).planned(record.processes), path)
    compute = suite.compute.model_copy(update={"export": False, "trackers": TrackerSettings()})
    short = suite.model_copy(update={"epochs": epochs, "compute": compute})
    metrics, evals = metrics[:epochs], [line for line in evals if line.epoch <= epochs]
    evaluated = {line.epoch for line in evals}
    with tempfile.TemporaryDirectory(prefix="rfbench-verify-") as root:
        plan = make_plan(short, record.variant, record.seed)
        with suppress(_Enough):  # an evaluation that the record has not is not made, though a run ends with one
            train(plan, Path(root), progress if epochs in evaluated else _Until(epochs, progress))
        repeated = RunFolder(run_path(Path(root), short.name, plan.label, plan.seed), writer=False)
        made = repeated.require_run().model_copy(update={"suite": record.suite, "processes": record.processes})
        check_repeatable(record, made, path)  # a reward tells its version once it is loaded
        found_metrics, found_evals = repeated.read("metrics"), repeated.read("evals")
    pairs = list(_numbers(metrics, evals, found_metrics, found_evals))
    return Verification(
        epochs,
        len(pairs),
        sum(stored != found for stored, found in pairs),
        deviations(curves_of(metrics, evals), curves_of(found_metrics, found_evals), _training_rewards(evals)),
    )


class _Enough(KeyboardInterrupt):
    """Ends a run whose rest nobody needs."""


class _Until(Progress):
    """Shows a run, and ends it after an epoch's record."""

    def __init__(self, last: int, progress: Progress) -> None:
        self._last, self._progress = last, progress

    def running(self, plan: Plan, meter: Meter, epoch: int, folder: Path) -> AbstractContextManager[None]:
        return self._progress.running(plan, meter, epoch, folder)

    def note(self, message: str) -> None:
        self._progress.note(message)

    def on_evaluation(self, records: Sequence[EvaluationRecord]) -> None:
        self._progress.on_evaluation(records)

    def on_epoch(self, record: EpochRecord) -> None:
        self._progress.on_epoch(record)
        if record.epoch == self._last:
            raise _Enough


def curves_of(metrics: Iterable[EpochRecord], evals: Iterable[EvaluationRecord]) -> Curves:
    """The curves by which two runs are compared: over epochs of training, and over evaluations."""
    lines = list(metrics)
    values = {name: [getattr(line, name) for line in lines] for name in METRICS}
    curves = {name: [value for value in curve if value is not None] for name, curve in values.items()}
    for line in evals:
        curves.setdefault(f"{line.evaluation_set} {line.measure}", []).append(line.mean)
    return curves


def deviations(stored: Curves, found: Curves, rewards: Iterable[str] = ()) -> list[Deviation]:
    """Of each quantity, the point that is farthest from the stored curve, in units of its tolerance; the worst first.

    ``found`` may end earlier than ``stored``. ``rewards``: the curves of the training reward.
    """
    rows = []
    for name in stored.keys() | found.keys():
        if name not in stored or name not in found:
            rows.append(Deviation(name, 0, math.nan, math.nan, math.inf))
            continue
        relative = REWARD_TOLERANCE if name in {"reward_mean", *rewards} else TOLERANCE
        scale = relative * max(map(abs, stored[name]), default=0.0) or 1e-12
        points = zip(stored[name], found[name], strict=False)
        away, point = max(((abs(before - now) / scale, i) for i, (before, now) in enumerate(points)), default=(0.0, 0))
        if stored[name]:
            rows.append(Deviation(name, point, stored[name][point], found[name][point], away))
    return sorted(rows, key=lambda row: (-row.tolerances, row.quantity))


def _training_rewards(evals: Iterable[EvaluationRecord]) -> set[str]:
    return {f"{line.evaluation_set} {line.measure}" for line in evals if line.role == "training"}


def _numbers(
    metrics: Sequence[EpochRecord],
    evals: Sequence[EvaluationRecord],
    found_metrics: Sequence[EpochRecord],
    found_evals: Sequence[EvaluationRecord],
) -> Iterable[tuple[Any, Any]]:
    """Every recorded number beside the repeated one: what both versions of rfbench record, but seconds."""
    repeated = {_place(line): line for line in (*found_metrics, *found_evals)}
    for stored in (*metrics, *evals):
        if found := repeated.get(_place(stored)):
            ours, theirs = stored.model_dump(exclude_none=True), found.model_dump()
            for key in ours.keys() & theirs.keys():
                if not key.endswith("_seconds") and isinstance(ours[key], int | float | list):
                    yield ours[key], theirs[key]


def _place(line: Any) -> tuple[Any, ...]:
    return (line.epoch, getattr(line, "evaluation_set", None), getattr(line, "measure", None))
