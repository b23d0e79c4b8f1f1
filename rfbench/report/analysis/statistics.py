"""How stable a run was: one definition per statistic, for one curve of evaluations.

A curve is one run's mean of one measure on one prompt set at epochs e_0 < … < e_n. Its first value, at epoch 0, is the
base model: the first evaluation of every run draws the same images. With best_k the highest of the first k + 1 values:

- start, final, best: the first, last and highest value. `best_epoch`: the first epoch that reached the best.
- gain: final − start.
- area: the mean height of the curve above its start, over reward queries (trapezoids). In the measure's unit: an
  algorithm that gains early and keeps its gain has an area close to its gain.
- drawdown: the largest drop from the best so far, max over k of best_k − y_k. Never negative.
- drawdown_share: drawdown / (best − start): 1 means that as much was lost as had ever been gained. Null without a gain.
- epochs_below_base: epochs spent below the start; each evaluation stands for the epochs since the one before it.
- volatility: standard deviation (n − 1) of the first differences y_k − y_(k−1), which a steady climb leaves at zero.
  Null with fewer than three evaluations.
- collapse_epoch: the first epoch from which every later evaluation, the last one included, lies below
  start + (best_k − start) / 2 by more than 3 of its standard errors: half of the gain, or the base model where nothing
  had been gained, is lost for good and not by chance. Null for a run that did not collapse.
- queries_to_threshold, seconds_to_threshold: reward queries and training seconds (every phase but evaluation) until
  the curve first reaches `threshold`, with straight lines between evaluations; null if it never does. The threshold is
  half-way from the start to the end of the algorithm that ends highest, means over seeds, one for all algorithms of a
  suite, measure and prompt set; null where no algorithm ends above the base.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

Curve = npt.NDArray[np.float64]

COLLAPSE_LOSS = 0.5  # share of the best gain
COLLAPSE_STANDARD_ERRORS = 3.0
CURVE_KEY = ["suite", "variant", "seed", "run", "evaluation_set", "seen", "measure", "role", "unit"]
STATISTICS = {
    "start": pl.Float64(),
    "best": pl.Float64(),
    "best_epoch": pl.Int64(),
    "final": pl.Float64(),
    "gain": pl.Float64(),
    "area": pl.Float64(),
    "drawdown": pl.Float64(),
    "drawdown_share": pl.Float64(),
    "epochs_below_base": pl.Int64(),
    "volatility": pl.Float64(),
    "collapse_epoch": pl.Int64(),
}
PANEL = ["suite", "measure", "evaluation_set"]


def stability(evals: pl.DataFrame) -> pl.DataFrame:
    """One row per run, prompt set and measure, with every statistic of this module. `evals` is `Runs.evals`."""
    columns = pl.col("epoch", "reward_queries", "mean", "standard_error").cast(pl.Float64)
    curves = evals.lazy().group_by(CURVE_KEY, maintain_order=True).agg(columns).collect()
    rows = []
    for *key, epochs, queries, means, errors in curves.iter_rows():
        arrays = (np.array(values, dtype=np.float64) for values in (epochs, queries, means, errors))
        rows.append(dict(zip(CURVE_KEY, key, strict=True)) | curve_statistics(*arrays))
    schema = {column: evals.schema[column] for column in CURVE_KEY} | STATISTICS
    return _with_thresholds(pl.DataFrame(rows, schema=schema).sort(CURVE_KEY), evals).sort(CURVE_KEY)


def _with_thresholds(statistics: pl.DataFrame, evals: pl.DataFrame) -> pl.DataFrame:
    by_algorithm = statistics.group_by(*PANEL, "variant", maintain_order=True).agg(pl.col("start", "final").mean())
    best = by_algorithm.sort("final", "variant", descending=[True, False]).unique(PANEL, keep="first")
    half_way = pl.when(pl.col("final") > pl.col("start")).then((pl.col("start") + pl.col("final")) / 2)
    thresholds = best.select(*PANEL, half_way.alias("threshold"))
    curve, numbers = ["run", "evaluation_set", "measure"], ["mean", "reward_queries", "seconds"]
    points = evals.select("suite", *curve, "epoch", *numbers).join(thresholds, on=PANEL, maintain_order="left")
    before = [pl.col(c).shift(1).over(curve).alias(f"{c}_before") for c in numbers]
    crossing = (
        points.with_columns(before)
        .filter(pl.col("mean") >= pl.col("threshold"))
        .unique(curve, keep="first", maintain_order=True)
    )
    share = (pl.col("threshold") - pl.col("mean_before")) / (pl.col("mean") - pl.col("mean_before"))
    reached = crossing.select(
        *curve,
        *(
            (pl.col(f"{c}_before") + share * (pl.col(c) - pl.col(f"{c}_before"))).alias(f"{name}_to_threshold")
            for c, name in (("reward_queries", "queries"), ("seconds", "seconds"))
        ),
    )
    return statistics.join(thresholds, on=PANEL, how="left").join(reached, on=curve, how="left")


def curve_statistics(epochs: Curve, queries: Curve, values: Curve, errors: Curve) -> dict[str, float | int | None]:
    """Every statistic of one curve. A missing standard error (NaN) counts as zero."""
    best_so_far = np.maximum.accumulate(values)
    start, best = values[0], best_so_far[-1]
    drawdown = float(np.max(best_so_far - values))
    collapse = collapse_index(values, errors)
    return {
        "start": float(start),
        "best": float(best),
        "best_epoch": int(epochs[np.argmax(values)]),
        "final": float(values[-1]),
        "gain": float(values[-1] - start),
        "area": area_above_start(queries, values),
        "drawdown": drawdown,
        "drawdown_share": drawdown / float(best - start) if best > start else None,
        "epochs_below_base": int(np.sum(np.diff(epochs)[values[1:] < start])),
        "volatility": float(np.std(np.diff(values), ddof=1)) if len(values) > 2 else None,
        "collapse_epoch": None if collapse is None else int(epochs[collapse]),
    }


def area_above_start(queries: Curve, values: Curve) -> float | None:
    """Mean height above the first value, weighted by reward queries; null for a single evaluation."""
    span = queries[-1] - queries[0]
    return float(np.trapezoid(values - values[0], queries) / span) if span > 0 else None


def collapse_index(values: Curve, errors: Curve) -> int | None:
    """Index of the evaluation at which the curve collapsed, or None."""
    best_so_far = np.maximum.accumulate(values)
    line = values[0] + (1 - COLLAPSE_LOSS) * (best_so_far - values[0])
    above = values >= line - COLLAPSE_STANDARD_ERRORS * np.nan_to_num(errors)
    index = int(np.flatnonzero(above)[-1]) + 1  # the first value is on its own line, so there is always one
    return index if index < len(values) else None
