"""The comparison for a terminal 80 columns wide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rfbench.report.analysis.paper import SOURCE
from rfbench.report.render.tables import HEADINGS, PAPER_HEADINGS, caption, cells, paper_cells, suites

if TYPE_CHECKING:
    from rfbench.report.comparison import Comparison

MOST_NOTES = 40
CELL_WIDTH = 13  # "0.6870±0.0100": what fits four times beside an algorithm's name


def render_comparison(comparison: Comparison) -> RenderableType:
    """Everything that `rfbench compare` says: the verdict, the tables, the paper beside them, and notes."""
    parts: list[RenderableType] = []
    for verdict in comparison.verdicts:
        parts.append(Text(f"{verdict.suite}: {verdict.headline}", style="bold"))
        parts += [Padding(Text(f"- {sentence}"), (0, 0, 0, 2)) for sentence in verdict.sentences]
        parts.append(Text())
    parts.append(render(comparison.table))
    if comparison.paper.height:
        parts.append(render_paper(comparison.paper))
    parts += [Text(note, style="yellow") for note in comparison.notes[:MOST_NOTES]]
    if len(comparison.notes) > MOST_NOTES:
        parts.append(Text(f"… and {len(comparison.notes) - MOST_NOTES} more", style="yellow"))
    return Group(*parts)


def render(summary: pl.DataFrame) -> RenderableType:
    """The short table (`tables.summarise`): a block per measure and prompt set."""
    parts: list[RenderableType] = []
    for suite, rows in suites(summary):
        parts.append(Text(suite, style="bold"))
        parts += [_render_block(block) for block in rows.partition_by("measure", "evaluation_set", maintain_order=True)]
        parts.append(Text(caption(rows) + "\n", style="dim"))
    return Group(*parts)


def _render_block(block: pl.DataFrame) -> Table:
    shown = cells(block, CELL_WIDTH + 2)  # the spaces around ± are taken out
    title = Text(f"{shown[0][0]} on {shown[0][1]} prompts")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("variant", min_width=10, overflow="fold")
    for heading in ("seeds", *HEADINGS.values()):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in shown:
        table.add_row(*(escape(cell.replace(" ± ", "±")) for cell in row[2:]))
    return table


def render_paper(paper: pl.DataFrame) -> RenderableType:
    """The paper's numbers beside the measured ones (`paper.beside_paper`)."""
    parts: list[RenderableType] = []
    for suite, rows in suites(paper):
        table = Table(title=Text(f"{suite} beside {SOURCE}"), title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("measure", "evaluation_set", *PAPER_HEADINGS):
            table.add_column(heading, justify="right" if heading in PAPER_HEADINGS[1:] else "left", overflow="fold")
        for row in paper_cells(rows):
            table.add_row(*map(escape, row))
        parts.append(table)
    return Group(*parts)
