"""The report as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rfbench.report.analysis.verdict import Verdict
from rfbench.report.render.colours import COLOURS, LOOKS, looks
from rfbench.report.render.gallery import Gallery, galleries
from rfbench.report.render.page_tables import PageTable, runs_table, suite_tables
from rfbench.report.render.plots import COLUMN_WIDTH, INK

if TYPE_CHECKING:
    from rfbench.report.comparison import Comparison


@dataclass(frozen=True)
class Plot:
    """One plot of one suite, as it was written."""

    suite: str
    name: str
    caption: str
    png: Path
    svg: Path


@dataclass(frozen=True)
class Section:
    """One suite of the page."""

    suite: str
    verdict: Verdict
    tables: list[PageTable]
    plots: list[tuple[str, bool, Markup]]  # caption, whether it takes the page's width, picture
    gallery: Gallery | None


def write_page(found: Comparison, drawn: Sequence[Plot], path: Path) -> Path:
    """Write the page of a comparison, with the plots drawn of it, to `path`. Every text from a run is escaped."""
    by_suite = {gallery.suite: gallery for gallery in galleries(found.runs.runs)}
    sections: list[Section] = []
    for verdict in found.verdicts:
        of_suite = [plot for plot in drawn if plot.suite == verdict.suite]
        plots = [(plot.caption, *inline_svg(plot.svg, f"p{len(sections)}-{i}-")) for i, plot in enumerate(of_suite)]
        tables = suite_tables(found, verdict.suite)
        sections.append(Section(verdict.suite, verdict, tables, plots, by_suite.get(verdict.suite)))
    environment = Environment(
        loader=PackageLoader("rfbench.report.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    marks = {name: LOOKS.index(look) for name, look in looks(found.considered["variant"]).items()}
    html = environment.get_template("page.html").render(
        sections=sections,
        notes=found.notes.shown(),
        runs=runs_table(found.considered),
        compared=found.runs.runs.height,
        marks=marks,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")
    return path


def inline_svg(path: Path, prefix: str) -> tuple[bool, Markup]:
    """Whether a plot is wide, and the plot as part of the page: in its ink and background, with ids of its own."""
    svg = path.read_text(encoding="utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg)
    svg = svg.replace(INK, "currentColor").replace("#ffffff", "none")
    for index, colour in enumerate(COLOURS):
        svg = svg.replace(colour.lower(), f"var(--mark-{index})")
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1])  # type: ignore[index]  # matplotlib always writes it
    return width > 72 * COLUMN_WIDTH + 1, Markup(svg)
