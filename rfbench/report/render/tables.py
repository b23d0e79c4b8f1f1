"""The short table and the paper's as cells of text, and as Markdown."""

from __future__ import annotations

from typing import Any

import polars as pl

from rfbench.report.analysis.short_table import SHOWN
from rfbench.report.frames import decimals, prompt_set, suites, thousands

PAPER_HEADINGS = ["method", "paper", "measured here", "gap"]
HEADINGS = {"start": "start", "best": "best", "final": "final", "drawdown": "largest drop"}
COSTS = ["forwards", "backwards", "steps", "seconds"]


def to_markdown(summary: pl.DataFrame) -> str:
    """The summary as Markdown, one table per suite."""
    parts = []
    for suite, rows in suites(summary):
        headings = ["measure", "evaluation_set", "variant", "seeds", *HEADINGS.values(), *COSTS]
        lines = [f"## {plain(suite)}", "", markdown_row(headings), markdown_row(["---"] * 3 + ["---:"] * 9)]
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


def cells(rows: pl.DataFrame) -> list[list[str]]:
    """The text of each row: measure, prompts, algorithm, seeds, each shown statistic as mean ± spread, and `COSTS`."""
    result = []
    for block in rows.partition_by("measure", "evaluation_set", maintain_order=True):
        digits = decimals([block[name] for name in SHOWN])
        for row in block.iter_rows(named=True):
            values = [with_spread(row[name], row[f"{name}_spread"], digits) for name in SHOWN]
            measure = f"{row['measure']} ({row['role']})"
            result.append([measure, prompt_set(row), row["variant"], str(row["seeds"]), *values, *cost_cells(row)])
    return result


def cost_cells(row: dict[str, Any]) -> list[str]:
    """The text of what a run spent, by `COSTS`: passes of the denoiser, optimizer steps, training seconds."""
    columns = ("denoiser_forwards", "denoiser_backwards", "optimizer_steps", "seconds")
    return ["–" if row[column] is None else thousands(row[column]) for column in columns]


def caption(rows: pl.DataFrame) -> str:
    """What the ± means, and when it cannot mean anything."""
    text = (
        "Mean ± standard deviation over seeds (none where all seeds agree). Start: the base model. "
        "Largest drop: the farthest a run fell below its best so far. Forwards, backwards: latents through the "
        "denoiser in training; steps: of the optimizer; seconds: of training, without evaluation. Means over seeds."
    )
    single = rows.filter(pl.col("seeds") == 1)["variant"].unique().sort()
    if not single.is_empty():
        text += f" One seed of {', '.join(single)}: no spread, so no difference can be told from noise."
    return text


def with_spread(value: float | None, spread: float | None, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread else "")


def markdown_row(row: list[str]) -> str:
    return f"| {' | '.join(row)} |"


def plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return " ".join(plain_line(text).replace("|", "\\|").split())


def plain_line(text: str) -> str:
    """A line in which nothing is taken for HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
