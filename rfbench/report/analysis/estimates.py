"""What the seeds say together: each statistic of each algorithm, with its 95 % interval."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from rfbench.report.analysis import bounds, intervals
from rfbench.report.analysis.curves import Cell, Curve, Curves, table
from rfbench.report.analysis.intervals import Interval
from rfbench.report.frames import CELL, order

OVER_SEEDS = (
    "best",
    "area",
    "drawdown",
    "drawdown_share",
    "epochs_below_base",
    "volatility",
    "queries_to_threshold",
    "seconds_to_threshold",
)
STATISTICS = ("final", "gain", "final_iqm", *OVER_SEEDS, "collapsed")
INTERVAL: dict[str, pl.DataType] = dict.fromkeys(("estimate", "low", "high"), pl.Float64())


def estimate(curves: Curves, stability: pl.DataFrame) -> pl.DataFrame:
    """One row per suite, measure, prompt set, algorithm and statistic (of `STATISTICS`): estimate, low, high.

    `seeds` counts the runs that an estimate rests on: those for which the statistic is defined, so for the thresholds
    those that reached it. `final` and `gain` vary over seeds and prompts, `final_iqm` (interquartile mean) and the rest
    over seeds; `collapsed` is the share of collapsed runs with Wilson's interval. Diagnostics have final and gain only.
    """
    rows = []
    groups = {key: group for key, group in stability.group_by([*CELL, "variant"], maintain_order=True)}
    for cell, runs in curves:
        for statistic, seeds, interval in _intervals(cell, runs, groups[tuple(cell.values())]):
            rows.append(cell | {"statistic": statistic, "seeds": seeds} | vars(interval))
    schema = {c: stability.schema[c] for c in [*CELL, "variant"]} | {"statistic": pl.String(), "seeds": pl.Int64()}
    rank = pl.col("statistic").replace_strict(STATISTICS, range(len(STATISTICS)), return_dtype=pl.Int64)
    return order(pl.DataFrame(rows, schema=schema | INTERVAL), pl.col("variant"), rank)


def _intervals(cell: Cell, runs: list[Curve], stability: pl.DataFrame) -> Iterator[tuple[str, int, Interval]]:
    ends, starts = table(runs), table(runs, 0)
    of_measure = bounds.of_measure(cell)
    of_change = bounds.of_change(of_measure, intervals.average(starts))
    yield "final", len(ends), intervals.mean(ends).interval(of_measure)
    yield "gain", len(ends), intervals.mean(ends - starts).interval(of_change)
    if cell["role"] == "diagnostic":
        return
    yield "final_iqm", len(runs), intervals.interquartile_mean(stability["final"].to_numpy(), of_measure)
    possible = {
        "best": of_measure,
        "area": of_change,
        "drawdown": (0.0, of_measure[1] - of_measure[0]),
        "epochs_below_base": (0.0, float(max(curve.epochs[-1] for curve in runs))),
        "queries_to_threshold": (0.0, float(max(curve.costs["reward_queries"][-1] for curve in runs))),
    }
    for statistic in OVER_SEEDS:
        values = stability[statistic].drop_nulls().cast(pl.Float64).to_numpy()
        if len(values):
            limits = possible.get(statistic, bounds.NOT_NEGATIVE)
            yield statistic, len(values), intervals.mean(values[:, None]).interval(limits)
    collapsed = stability.height - stability["collapse_epoch"].null_count()
    yield "collapsed", len(runs), intervals.wilson(collapsed, len(runs))
