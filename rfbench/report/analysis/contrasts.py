"""The comparisons that a verdict states: the one that ends best against each other, corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from rfbench.report.analysis import bounds
from rfbench.report.analysis.intervals import LEVEL, Mean
from rfbench.report.analysis.pairs import LOWER_IS_BETTER
from rfbench.report.frames import CELL, suites

Row = dict[str, Any]
NUMBERS = ("lead", "low", "high", "level", "p", "p_holm")


def contrasts(estimates: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """One row per suite and contender (`contenders`) but the leader, in the order in which they end.

    `variant` is the leader: the one that ends best in what the suite is judged by (`judged`). lead: by how much it ends
    better than `other`, in the measure's unit and never negative. p: of no difference, two-sided; p_holm: corrected by
    Holm's method (1979) over these rows. low and high: the interval at the level that Holm's method judges the row by,
    so that it excludes 0 where, and only where, `told` says that the lead is told from noise. Null with a single seed.
    """
    rows = [row for _, frame in suites(estimates) for row in _of_suite(judged(frame), pairs)]
    text = dict.fromkeys((*CELL, "variant", "other"), pl.String()) | {"seen": pl.Boolean()}
    return pl.DataFrame(rows, schema=text | dict.fromkeys(NUMBERS, pl.Float64()) | {"told": pl.Boolean()})


def judged(estimates: pl.DataFrame) -> pl.DataFrame:
    """Rows of what one suite is judged by: the regret where its optimum is known, else the training reward.

    On the first prompt set, which was seen in training if any was. Empty where neither was evaluated.
    """
    known = estimates.filter(pl.col("measure").is_in(LOWER_IS_BETTER), pl.col("role") == "diagnostic")
    rows = known if known.height else estimates.filter(pl.col("role") == "training")
    if rows.is_empty():
        return rows
    first = rows.row(0, named=True)
    return rows.filter(pl.col("measure") == first["measure"], pl.col("evaluation_set") == first["evaluation_set"])


def ranked(rows: pl.DataFrame) -> pl.DataFrame:
    """The final value of each algorithm among the rows of `judged`, best first."""
    finals = rows.filter(pl.col("statistic") == "final")
    lower = not finals.is_empty() and finals["measure"][0] in LOWER_IS_BETTER
    return finals.sort("estimate", "variant", descending=[not lower, False])


def contenders(rows: pl.DataFrame) -> pl.DataFrame:
    """Those of `ranked` between whom a winner is told: the ones with two seeds or more, if there are two such.

    A single run has no spread. Beside algorithms that have one it is shown, but decides nothing and changes nothing.
    """
    order = ranked(rows)
    several = order.filter(pl.col("seeds") > 1)
    return several if several.height > 1 else order


def between(pairs: pl.DataFrame, variant: str, other: str) -> Row:
    """The row of `pairs.pairs` of two algorithms, turned so that `variant` stands first."""
    for row in pairs.iter_rows(named=True):
        if (row["variant"], row["other"]) == (variant, other):
            return row
        if (row["variant"], row["other"]) == (other, variant):
            return (
                row
                | turned(row, "difference", "low", "high")
                | turned(row, "equal_difference", "equal_low", "equal_high")
            )
    raise KeyError((variant, other))


def turned(row: Row, value: str, low: str, high: str) -> Row:
    """A difference seen from the other side."""
    return {a: None if row[b] is None else -row[b] for a, b in ((value, value), (low, high), (high, low))}


def holm(p_values: Sequence[float]) -> list[tuple[float, float]]:
    """Each p value corrected, and the level of the interval that excludes 0 where Holm's method rejects.

    The i-th smallest of m is compared with 0.05 / (m - i + 1), until one is not below that: it and all later ones are
    not rejected, and theirs is the level at which the first of them was judged.
    """
    m = len(p_values)
    found = [(0.0, 0.0)] * m
    corrected, failed_at = 0.0, m
    for place, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        corrected = max(corrected, min(1.0, (m - place) * p_values[index]))
        if corrected > 1 - LEVEL:
            failed_at = min(failed_at, place)
        found[index] = corrected, 1 - (1 - LEVEL) / (m - min(place, failed_at))
    return found


def _of_suite(rows: pl.DataFrame, pairs: pl.DataFrame) -> list[Row]:
    order = contenders(rows)
    if order.height < 2:
        return []
    here = pairs.filter(*(pl.col(c) == order[c][0] for c in ("suite", "measure", "evaluation_set")))
    leader = order["variant"][0]
    sign = -1.0 if order["measure"][0] in LOWER_IS_BETTER else 1.0
    found = [between(here, leader, other) for other in order["variant"][1:]]
    corrected = iter(holm([row["p"] for row in found if row["p"] is not None]))
    return [_contrast(row, sign, *(next(corrected) if row["p"] is not None else (None, None))) for row in found]


def _contrast(row: Row, sign: float, p_holm: float | None, level: float | None) -> Row:
    lead = Mean(sign * row["difference"], row["standard_error"], row["freedom"])
    place = {column: row[column] for column in (*CELL, "variant", "other")}
    if p_holm is None or level is None:
        return place | {"lead": lead.estimate}
    interval = lead.interval(bounds.of_difference(bounds.of_measure(row)), level)
    numbers = {"lead": lead.estimate, "low": interval.low, "high": interval.high, "level": level}
    return place | numbers | {"p": row["p"], "p_holm": p_holm, "told": p_holm <= 1 - LEVEL}
