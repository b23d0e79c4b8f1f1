"""The comparison for a terminal 80 columns wide: notes, a short table of each suite, and at the end the verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rfbench.report.analysis.contrasts import judged, ranked
from rfbench.report.analysis.paper import SOURCE
from rfbench.report.frames import decimals, prompt_set, suites
from rfbench.report.render.tables import COSTS, PAPER_HEADINGS, cost_cells, paper_cells

if TYPE_CHECKING:
    from rfbench.report.comparison import Comparison

MOST_DETAILS, MOST_SENTENCES = 10, 5


def render_comparison(found: Comparison) -> RenderableType:
    """Everything that `rfbench compare` says, its verdict last."""
    parts: list[RenderableType] = [Text(note, style="yellow") for note in found.notes.shown(MOST_DETAILS)]
    for suite, estimates in suites(found.estimates):
        rows = judged(estimates)
        if not rows.is_empty():
            parts.append(render_suite(rows, found.curves.filter(pl.col("suite") == suite)))
    if found.paper.height:
        parts.append(render_paper(found.paper))
    for verdict in found.verdicts:
        parts.append(Text(f"{verdict.suite}: {verdict.headline}", style="bold"))
        parts += [Padding(Text(f"- {sentence}"), (0, 0, 0, 2)) for sentence in verdict.sentences[:MOST_SENTENCES]]
    if any(len(verdict.sentences) > MOST_SENTENCES for verdict in found.verdicts):
        parts.append(Text("The rest of the verdict is in comparison.md.", style="dim"))
    return Group(*parts)


def render_suite(rows: pl.DataFrame, curves: pl.DataFrame) -> Table:
    """What one suite is judged by (`contrasts.judged`), with its gain over the base model and what a run cost."""
    finals = ranked(rows)
    first = finals.row(0, named=True)
    changes = rows.filter(pl.col("statistic") == "gain")
    digits = max(0, decimals([changes["estimate"]]) - 1)
    gains = {row["variant"]: row for row in changes.iter_rows(named=True)}
    ends = curves.group_by("variant").agg(pl.all().last())
    spent = {row["variant"]: row for row in ends.iter_rows(named=True)}
    title = Text(f"{first['suite']}: {first['measure']} on {prompt_set(first)} prompts")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("variant", min_width=10, overflow="fold")
    for heading in ("final", "gain", *COSTS):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in finals.iter_rows(named=True):
        gain = gains[row["variant"]]
        text = f"{gain['estimate']:+.{digits}f}"
        text += "" if gain["low"] is None else f" [{gain['low']:.{digits}f}, {gain['high']:.{digits}f}]"
        cells = [row["variant"], f"{row['estimate']:.{digits}f}", text, *cost_cells(spent[row["variant"]])]
        table.add_row(*map(escape, cells))
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
