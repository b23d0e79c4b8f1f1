"""The evaluations of a comparison as arrays: a `Curve` per run, and the mean curve of each algorithm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rfbench.report.analysis import intervals
from rfbench.report.analysis.bounds import of_change, of_measure
from rfbench.report.analysis.intervals import Array
from rfbench.report.frames import CELL, order

COSTS = ("optimizer_steps", "reward_queries", "denoiser_forwards", "denoiser_backwards", "seconds")
BACKWARD_COST = 2  # forward passes that a backward pass costs: gradients by activations and by weights

COMPUTE = (pl.col("denoiser_forwards") + BACKWARD_COST * pl.col("denoiser_backwards")).alias("compute")


@dataclass(frozen=True)
class Curve:
    """One run's evaluations of one measure on one prompt set.

    epochs: `(evaluations,)`. means: `(evaluations,)`. costs: what had been spent by then, each `(evaluations,)`, NaN
    where that was not recorded. prompts: the mean of each prompt `(evaluations, prompts)`, moved so that they average
    to `means`, as records round them; None where the run has none.
    """

    epochs: Array
    means: Array
    costs: dict[str, Array]
    prompts: Array | None

    @cached_property
    def compute(self) -> Array:
        """Forward passes of the denoiser, `(evaluations,)`; a backward pass counts as two."""
        return self.costs["denoiser_forwards"] + BACKWARD_COST * self.costs["denoiser_backwards"]

    def at_compute(self, compute: float) -> Curve:
        """The one evaluation that lies on the straight line between the two around this much `compute`."""
        after = int(np.clip(np.searchsorted(self.compute, compute), 1, len(self.epochs) - 1))
        step = self.compute[after] - self.compute[after - 1]
        share = float(np.clip((compute - self.compute[after - 1]) / step, 0.0, 1.0)) if step > 0 else 1.0

        def between(values: Array) -> Array:
            return (1 - share) * values[after - 1 : after] + share * values[after : after + 1]

        prompts = None if self.prompts is None else between(self.prompts)
        costs = {name: between(values) for name, values in self.costs.items()}
        return Curve(between(self.epochs), between(self.means), costs, prompts)


Cell = dict[str, Any]
Curves = list[tuple[Cell, list[Curve]]]


def read_curves(evals: pl.DataFrame) -> Curves:
    """(suite, measure, role, unit, prompt set, seen and variant; a curve per run) of `Runs.evals`, in their order."""
    key = [*CELL, "variant"]
    changed = evals.select(pl.struct(*key, "run").rle_id()).to_series().diff().fill_null(1).to_numpy().astype(bool)
    starts = np.flatnonzero(changed)
    means, epochs = evals["mean"].to_numpy(), evals["epoch"].cast(pl.Float64).to_numpy()
    costs = {name: evals[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in COSTS}
    prompts = _Prompts(evals["per_prompt"])
    found: dict[tuple[Any, ...], list[Curve]] = {}
    for row, start, stop in zip(
        evals[starts].select(key).iter_rows(), starts, [*starts[1:], evals.height], strict=True
    ):
        here = slice(start, stop)
        spent = {name: values[here] for name, values in costs.items()}
        curve = Curve(epochs[here], means[here], spent, prompts.table(here, means[here]))
        found.setdefault(row, []).append(curve)
    return [(dict(zip(key, row, strict=True)), curves) for row, curves in found.items()]


class _Prompts:
    """The means per prompt of every evaluation, one after the other."""

    def __init__(self, lists: pl.Series) -> None:
        self._lengths = lists.list.len().fill_null(0).cast(pl.Int64).to_numpy()
        self._values = lists.explode().cast(pl.Float64).fill_null(np.nan).to_numpy()
        self._starts = np.concatenate(
            [[0], np.cumsum(np.maximum(self._lengths, 1))]
        )  # an empty list explodes to a null

    def table(self, rows: slice, means: Array) -> Array | None:
        """(evaluations, prompts) with the given means; None where some are missing or differ in number."""
        lengths = self._lengths[rows]
        if not lengths[0] or (lengths != lengths[0]).any():
            return None
        table = self._values[self._starts[rows.start] : self._starts[rows.stop]].reshape(len(lengths), lengths[0])
        moved = table + (means - table.mean(axis=1))[:, None]
        return None if np.isnan(moved).any() else moved


def table(curves: Sequence[Curve], evaluations: int | Sequence[npt.NDArray[np.int64]] = -1) -> Array:
    """(seeds, prompts) of one evaluation of each; a column of means where runs lack prompts or differ in their number.

    `evaluations` is one index for all curves, or several for each: then it is (evaluations, seeds, prompts).
    """
    indices: Sequence[Any] = [evaluations] * len(curves) if isinstance(evaluations, int) else evaluations
    rows = [curve.prompts[i] for curve, i in zip(curves, indices, strict=True) if curve.prompts is not None]
    if len(rows) == len(curves) and len({row.shape[-1] for row in rows}) == 1:
        return np.stack(rows, axis=-2)
    return np.stack([curve.means[i] for curve, i in zip(curves, indices, strict=True)], axis=-1)[..., None]


def tables(a: Sequence[Curve], b: Sequence[Curve]) -> tuple[Array, Array]:
    """The last evaluations of two algorithms, with the same prompts or with one column of means each."""
    first, second = table(a), table(b)
    if first.shape[1] == second.shape[1]:
        return first, second
    return first.mean(axis=1, keepdims=True), second.mean(axis=1, keepdims=True)


def mean_curves(curves: Curves) -> pl.DataFrame:
    """One row per suite, measure, prompt set, algorithm and epoch: what had been spent by then, and the reward.

    Costs and `mean` are means over the `seeds` that were evaluated at this epoch; `low` and `high` are the mean's 95 %
    interval over seeds and prompts. `gain` is the mean less the first evaluation's, the base model, with an interval of
    its own: runs and prompts are compared with themselves.
    """
    rows = [row | cell for cell, runs in curves for row in _mean_curve(cell, runs)]
    types = {"suite": pl.String(), "variant": pl.String(), "evaluation_set": pl.String(), "seen": pl.Boolean()}
    types |= {"measure": pl.String(), "role": pl.String(), "unit": pl.String(), "epoch": pl.Int64()}
    numbers = (*COSTS, "mean", "low", "high", "gain", "gain_low", "gain_high")
    types |= {name: pl.Float64() for name in numbers} | {"seeds": pl.Int64()}
    return order(pl.DataFrame(rows, schema=types), pl.col("variant"), pl.col("epoch"))


def _mean_curve(cell: Cell, curves: list[Curve]) -> Iterator[dict[str, Any]]:
    limits = of_measure(cell)
    for runs, epochs in _together(curves):
        places = [np.searchsorted(curve.epochs, epochs) for curve in runs]
        spent = {name: _total([c.costs[name][at] for c, at in zip(runs, places, strict=True)]) for name in COSTS}
        starts = table(runs, 0)
        base = intervals.average(starts)
        for index, values in enumerate(table(runs, places)):
            found = intervals.mean(values).interval(limits)
            change = intervals.mean(values - starts).interval(of_change(limits, base))
            costs = {name: float(total[index]) / len(runs) for name, total in spent.items()}
            yield {
                "epoch": int(epochs[index]),
                "mean": found.estimate,
                "low": found.low,
                "high": found.high,
                "gain": change.estimate,
                "gain_low": change.low,
                "gain_high": change.high,
                "seeds": len(runs),
            } | {name: None if np.isnan(value) else value for name, value in costs.items()}


def _total(arrays: list[Array]) -> Array:
    return sum(arrays[1:], start=arrays[0])  # one after the other, whatever their shape


def _together(curves: list[Curve]) -> Iterator[tuple[list[Curve], Array]]:
    """Curves that were evaluated at the same epochs, and these; every epoch once."""
    epochs = np.unique(np.concatenate([curve.epochs for curve in curves]))
    has = np.zeros((len(curves), len(epochs)), dtype=bool)
    for row, curve in zip(has, curves, strict=True):
        row[np.searchsorted(epochs, curve.epochs)] = True
    patterns, of_epoch = np.unique(has, axis=1, return_inverse=True)
    for index, pattern in enumerate(patterns.T):
        yield [curve for curve, here in zip(curves, pattern, strict=True) if here], epochs[of_epoch == index]
