"""What every table and plot shares: the order of rows, names of prompt sets, decimals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import polars as pl

ROLES = ["training", "held-out", "diagnostic"]
CELL = ["suite", "measure", "role", "unit", "evaluation_set", "seen"]  # one measure on one prompt set of one suite


def order(frame: pl.DataFrame, *by: pl.Expr, descending: bool = False) -> pl.DataFrame:
    """The order of every table and plot: suite, role, measure, seen before unseen, prompt set, then `by`."""
    rank = pl.col("role").replace_strict(ROLES, range(len(ROLES)), default=len(ROLES), return_dtype=pl.Int64)
    fixed = [pl.col("suite"), rank, pl.col("measure"), ~pl.col("seen"), pl.col("evaluation_set")]
    return frame.sort(*fixed, *by, pl.col("variant"), descending=[False] * 5 + [descending] * len(by) + [False])


def suites(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """(suite, its rows), in the frame's order."""
    for rows in frame.partition_by("suite", maintain_order=True):
        yield rows["suite"][0], rows


def prompt_set(row: dict[str, Any]) -> str:
    """The prompt set's name, with whether it was seen in training unless the name says so."""
    kind = "seen" if row["seen"] else "unseen"
    return kind if row["evaluation_set"] == kind else f"{row['evaluation_set']} ({kind})"


def decimals(columns: list[pl.Series]) -> int:
    """Decimals that show four significant digits of the largest value, so that a column lines up."""
    largest = max((abs(value) for column in columns for value in column.drop_nulls()), default=0.0)
    return 3 if largest == 0 else max(0, min(6, 3 - math.floor(math.log10(largest))))


def thousands(count: float) -> str:
    """'318 k', '1.06 M'; whole below 10,000."""
    if count < 10_000:
        return f"{count:,.0f}"
    return f"{count / 1e3:.0f} k" if count < 999_500 else f"{count / 1e6:.3g} M"
