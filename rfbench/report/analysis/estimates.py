"""What the seeds say together: each statistic per algorithm, and each pair of algorithms, with 95 % intervals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl

from rfbench.report.analysis import bootstrap
from rfbench.report.analysis.bootstrap import Array, Interval
from rfbench.report.render.tables import order

CELL = ["suite", "measure", "role", "unit", "evaluation_set", "seen"]
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
NEVER_NEGATIVE = OVER_SEEDS[2:]
STATISTICS = ("final", "gain", "final_iqm", *OVER_SEEDS, "collapsed")
INTERVAL: dict[str, pl.DataType] = dict.fromkeys(("estimate", "low", "high"), pl.Float64())


def estimate(finals: pl.DataFrame, stability: pl.DataFrame) -> pl.DataFrame:
    """One row per suite, measure, prompt set, algorithm and statistic (of `STATISTICS`): estimate, low, high.

    `seeds` counts the runs that an estimate rests on: those for which the statistic is defined, so for the thresholds
    those that reached it. `final` and `gain` vary over seeds and prompts, `final_iqm` (interquartile mean) and the rest
    over seeds; `collapsed` is the share of collapsed runs with Wilson's interval. Diagnostics have final and gain only.
    """
    rows = []
    tables = {key: group for key, group in stability.group_by([*CELL, "variant"])}
    for key, group in finals.sort("run").group_by([*CELL, "variant"], maintain_order=True):
        cell = dict(zip([*CELL, "variant"], key, strict=True))
        for statistic, seeds, interval in _intervals(group, tables[key], cell["role"] == "diagnostic"):
            rows.append(cell | {"statistic": statistic, "seeds": seeds} | vars(interval))
    schema = {c: finals.schema[c] for c in [*CELL, "variant"]} | {"statistic": pl.String(), "seeds": pl.Int64()}
    rank = pl.col("statistic").replace_strict(STATISTICS, range(len(STATISTICS)), return_dtype=pl.Int64)
    return order(pl.DataFrame(rows, schema=schema | INTERVAL), pl.col("variant"), rank)


def _intervals(finals: pl.DataFrame, stability: pl.DataFrame, diagnostic: bool) -> Iterator[tuple[str, int, Interval]]:
    ends, starts = prompt_table(finals, "per_prompt"), prompt_table(finals, "start_per_prompt")
    means = stability["final"].to_numpy()
    if ends is None or starts is None or ends.shape != starts.shape:
        ends, starts = means[:, None], stability["start"].to_numpy()[:, None]
    yield "final", len(ends), bootstrap.mean_interval(ends)
    yield "gain", len(ends), bootstrap.mean_interval(ends - starts)
    if diagnostic:
        return
    yield "final_iqm", len(means), bootstrap.statistic_interval(means, bootstrap.interquartile_mean)
    for statistic in OVER_SEEDS:
        values = stability[statistic].drop_nulls().cast(pl.Float64).to_numpy()
        if len(values):
            interval = bootstrap.mean_interval(values[:, None])
            if statistic in NEVER_NEGATIVE and interval.low is not None:
                interval = replace(interval, low=max(0.0, interval.low))
            yield statistic, len(values), interval
    collapsed = stability.height - stability["collapse_epoch"].null_count()
    yield "collapsed", len(means), bootstrap.wilson(collapsed, len(means))


def pairs(finals: pl.DataFrame) -> pl.DataFrame:
    """One row per suite, measure, prompt set and pair of algorithms, the one with the higher final first.

    difference: final of `algorithm` less final of `other`, prompts paired, with its interval over seeds and prompts.
    probability: the chance that a run of `algorithm` ends above a run of `other`. Diagnostics are left out.
    """
    rows = []
    rewards = finals.filter(pl.col("role") != "diagnostic").sort("run")
    for key, cell in rewards.group_by(CELL, maintain_order=True):
        groups = {name: group for (name,), group in cell.group_by("variant")}
        ranked = sorted(groups, key=lambda name: (-_mean(groups[name]), str(name)))
        for a, b in itertools.combinations(ranked, 2):
            difference, probability = _compare(groups[a], groups[b])
            row = dict(zip(CELL, key, strict=True)) | {"variant": a, "other": b}
            row |= {"difference": difference.estimate, "low": difference.low, "high": difference.high}
            row |= {"probability": probability.estimate}
            rows.append(row | {"probability_low": probability.low, "probability_high": probability.high})
    schema = {c: finals.schema[c] for c in CELL} | {"variant": pl.String(), "other": pl.String()}
    numbers = ("difference", "low", "high", "probability", "probability_low", "probability_high")
    frame = pl.DataFrame(rows, schema=schema | dict.fromkeys(numbers, pl.Float64()))
    return order(frame.with_row_index("rank"), pl.col("rank")).drop("rank")


def _mean(group: pl.DataFrame) -> float:
    return float(group["mean"].to_numpy().mean())


def _compare(a: pl.DataFrame, b: pl.DataFrame) -> tuple[Interval, Interval]:
    means_a, means_b = a["mean"].to_numpy(), b["mean"].to_numpy()
    table_a, table_b = prompt_table(a, "per_prompt"), prompt_table(b, "per_prompt")
    if table_a is None or table_b is None or table_a.shape[1] != table_b.shape[1]:
        table_a, table_b = means_a[:, None], means_b[:, None]
    return bootstrap.difference_interval(table_a, table_b), bootstrap.probability_of_improvement(means_a, means_b)


def prompt_table(finals: pl.DataFrame, column: str) -> Array | None:
    """(seeds, prompts), or None where a run has no means per prompt or another number of them."""
    lists = finals[column]
    lengths = lists.list.len()
    if lists.null_count() or lengths.n_unique() != 1 or lengths[0] == 0 or lists.explode().null_count():
        return None
    return np.array(lists.to_list(), dtype=np.float64)
