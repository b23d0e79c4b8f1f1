"""The short comparison table as a frame, as cells of text, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import polars as pl

ROLES = ["training", "held-out", "diagnostic"]
SHOWN = ["start", "best", "final", "drawdown"]
PAPER_HEADINGS = ["method", "paper", "measured here", "gap"]
HEADINGS = {"start": "start", "best": "best", "final": "final", "drawdown": "largest drop"}


def summarise(stability: pl.DataFrame) -> pl.DataFrame:
    """Mean over seeds of each shown statistic, with `<statistic>_spread`, their standard deviation (n − 1) over seeds.

    Rows: suite, measure (training reward first), prompt set (seen first), then algorithms by their final value. The
    spread is null for a single seed. Diagnostics are no rewards, have no best and are left out.
    """
    key = ["suite", "measure", "role", "unit", "evaluation_set", "seen", "variant"]
    means = [pl.col(name).mean() for name in SHOWN]
    spreads = [pl.col(name).std().alias(f"{name}_spread") for name in SHOWN]
    table = (
        stability.filter(pl.col("role") != "diagnostic").group_by(key).agg(pl.len().alias("seeds"), *means, *spreads)
    )
    columns = [*key, "seeds", *(column for name in SHOWN for column in (name, f"{name}_spread"))]
    return order(table, pl.col("final"), descending=True).select(columns)


def order(frame: pl.DataFrame, *by: pl.Expr, descending: bool = False) -> pl.DataFrame:
    """The order of every table and plot: suite, role, measure, seen before unseen, prompt set, then `by`."""
    rank = pl.col("role").replace_strict(ROLES, range(len(ROLES)), default=len(ROLES), return_dtype=pl.Int64)
    fixed = [pl.col("suite"), rank, pl.col("measure"), ~pl.col("seen"), pl.col("evaluation_set")]
    return frame.sort(*fixed, *by, pl.col("variant"), descending=[False] * 5 + [descending] * len(by) + [False])


def to_markdown(summary: pl.DataFrame) -> str:
    """The summary as Markdown, one table per suite."""
    parts = []
    for suite, rows in suites(summary):
        headings = ["measure", "evaluation_set", "variant", "seeds", *HEADINGS.values()]
        lines = [f"## {plain(suite)}", "", markdown_row(headings), markdown_row(["---"] * 3 + ["---:"] * 5)]
        lines += [markdown_row([plain(cell) for cell in row]) for row in cells(rows)]
        parts.append("\n".join([*lines, "", caption(rows), ""]))
    return "\n".join(parts)


def paper_to_markdown(paper: pl.DataFrame) -> str:
    """The paper's numbers beside the measured ones, as Markdown."""
    parts = []
    for suite, rows in suites(paper):
        lines = [
            f"## {plain(suite)} beside the paper",
            "",
            markdown_row(["measure", "evaluation_set", *PAPER_HEADINGS]),
        ]
        lines += [markdown_row(["---"] * 3 + ["---:"] * 3)]
        lines += [markdown_row([plain(cell) for cell in row]) for row in paper_cells(rows)]
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


def paper_cells(rows: pl.DataFrame) -> list[list[str]]:
    """The text of each row of `paper.beside_paper`: measure, prompts, then `PAPER_HEADINGS`."""
    digits = decimals([rows["paper"]])
    result = []
    for row in rows.iter_rows(named=True):
        values = [with_spread(row[column], None, digits) for column in ("paper", "measured")]
        gap = "–" if row["gap"] is None else f"{row['gap']:+.{digits}f}"
        result.append([row["measure"], prompt_set(row), f"{row['method']} (paper)", *values, gap])
    return result


def suites(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """(suite, its rows), in the frame's order."""
    for rows in frame.partition_by("suite", maintain_order=True):
        yield rows["suite"][0], rows


def cells(rows: pl.DataFrame, width: int | None = None) -> list[list[str]]:
    """The text of each row: measure, prompts, algorithm, seeds, and each shown statistic as mean ± spread.

    A block whose cells are wider than `width` shows fewer decimals.
    """
    result = []
    for block in rows.partition_by("measure", "evaluation_set", maintain_order=True):
        digits = decimals([block[name] for name in SHOWN])
        while width is not None and digits and _widest(block, digits) > width:
            digits -= 1
        for row in block.iter_rows(named=True):
            values = [with_spread(row[name], row[f"{name}_spread"], digits) for name in SHOWN]
            measure = f"{row['measure']} ({row['role']})"
            result.append([measure, prompt_set(row), row["variant"], str(row["seeds"]), *values])
    return result


def _widest(block: pl.DataFrame, digits: int) -> int:
    pairs = (pair for name in SHOWN for pair in block.select(name, f"{name}_spread").iter_rows())
    return max(len(with_spread(value, spread, digits)) for value, spread in pairs)


def prompt_set(row: dict[str, Any]) -> str:
    """The prompt set's name, with whether it was seen in training unless the name says so."""
    kind = "seen" if row["seen"] else "unseen"
    return kind if row["evaluation_set"] == kind else f"{row['evaluation_set']} ({kind})"


def caption(rows: pl.DataFrame) -> str:
    """What the ± means, and when it cannot mean anything."""
    text = (
        "Mean ± standard deviation over seeds (none where all seeds agree). Start: the base model. "
        "Largest drop: the farthest a run fell below its best so far."
    )
    single = rows.filter(pl.col("seeds") == 1)["variant"].unique().sort()
    if not single.is_empty():
        text += f" One seed of {', '.join(single)}: no spread, so no difference can be told from noise."
    return text


def decimals(columns: list[pl.Series]) -> int:
    """Decimals that show four significant digits of the largest value, so that a column lines up."""
    largest = max((abs(value) for column in columns for value in column.drop_nulls()), default=0.0)
    return 3 if largest == 0 else max(0, min(6, 3 - math.floor(math.log10(largest))))


def with_spread(value: float | None, spread: float | None, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread else "")


def markdown_row(row: list[str]) -> str:
    return f"| {' | '.join(row)} |"


def plain(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
