"""`comparison.md`: the verdicts, what a reader must know beside them, and the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rfbench.report.frames import decimals, prompt_set, suites
from rfbench.report.render import headline, tables
from rfbench.report.render.tables import markdown_row, plain, plain_line

if TYPE_CHECKING:
    from rfbench.report.comparison import Comparison


def to_markdown(found: Comparison) -> str:
    """Everything but single runs and pairs."""
    parts = ["\n".join([*map(plain_line, str(verdict).split("\n")), ""]) for verdict in found.verdicts]
    if list(found.notes):
        parts.append("\n".join(["## Notes\n", *(f"- {plain(note)}" for note in found.notes), ""]))
    parts += [headline.to_markdown(found.estimates, found.curves), tables.to_markdown(found.table)]
    parts.append(steps_to_markdown(found.curves))
    parts += [tables.paper_to_markdown(found.paper)] if found.paper.height else []
    return "\n".join(parts)


def steps_to_markdown(curves: pl.DataFrame) -> str:
    """The training reward of each suite, evaluation by evaluation: a row per step, a column per algorithm.

    Steps are epochs and reward queries, which all algorithms share; the optimizer steps of an epoch are each one's own
    and stand in the first row.
    """
    parts = []
    for suite, rows in suites(curves.filter(pl.col("role") == "training")):
        parts.append(f"## {plain(suite)}: reward against steps, mean over seeds with 95 % intervals\n")
        for block in rows.partition_by("measure", "evaluation_set", maintain_order=True):
            first = block.row(0, named=True)
            parts.append(f"{plain(first['measure'])} on {plain(prompt_set(first))} prompts:\n\n{_steps(block)}\n")
    return "\n".join(parts)


def _steps(block: pl.DataFrame) -> str:
    ends = block.group_by("variant", maintain_order=True).last().sort("mean", "variant", descending=[True, False])
    variants, digits = ends["variant"].to_list(), max(0, decimals([block["mean"]]) - 1)
    taken = [_per_epoch(row["optimizer_steps"], row["epoch"]) for row in ends.iter_rows(named=True)]
    lines = [["epoch", "reward queries", *variants], ["---:"] * (2 + len(variants))]
    lines.append(["", "optimizer steps an epoch", *taken])
    for epoch in block["epoch"].unique().sort():
        here = {row["variant"]: row for row in block.filter(epoch=epoch).iter_rows(named=True)}
        queries = sorted(
            {f"{row['reward_queries']:,.0f}" for row in here.values() if row["reward_queries"] is not None}
        )
        lines.append([str(epoch), " or ".join(queries), *(_value(here.get(name), digits) for name in variants)])
    return "\n".join(markdown_row([plain(cell) for cell in line]) for line in lines)


def _per_epoch(steps: float | None, epochs: int) -> str:
    return "–" if steps is None or not epochs else f"{steps / epochs:.4g}"


def _value(row: dict[str, float | None] | None, digits: int) -> str:
    if row is None:
        return "–"
    text = f"{row['mean']:.{digits}f}"
    return text if row["low"] is None else f"{text} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
