"""The page of a comparison, put together: a section per suite, with what a visitor needs first on top."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rfbench.report.analysis.contrasts import judged, ranked
from rfbench.report.analysis.curves import COMPUTE
from rfbench.report.analysis.paper import paper_curves, references
from rfbench.report.analysis.verdict import Verdict
from rfbench.report.render.colours import COLOURS, LOOKS, Look, looks
from rfbench.report.render.page.charts import chart_data
from rfbench.report.render.page.gallery import Gallery, galleries
from rfbench.report.render.page.matrix import Matrix, matrices
from rfbench.report.render.page.overview import Line, facts, line
from rfbench.report.render.page.standings import Standings, standings
from rfbench.report.render.page.tables import PageTable, digits_by_measure, runs_table, suite_tables
from rfbench.report.render.plots import INK

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
    """One suite of the page. `plots` are the drawn ones, for readers without scripts."""

    verdict: Verdict
    judged: str
    ranking: list[str]
    line: Line
    facts: list[tuple[str, str]]
    standings: Standings
    charts: Markup
    plots: list[tuple[str, Markup]]
    gallery: Gallery | None
    matrices: list[Matrix]
    tables: list[PageTable]

    @property
    def suite(self) -> str:
        return self.verdict.suite

    @property
    def measures(self) -> list[str]:
        """What the tables can be filtered by, what the suite is judged by first."""
        return list(dict.fromkeys([self.judged, *(matrix.measure for matrix in self.matrices)]))

    @property
    def sets(self) -> list[str]:
        return list(dict.fromkeys(matrix.evaluation_set for matrix in self.matrices))


def write_page(found: Comparison, drawn: Sequence[Plot], path: Path, x: str) -> Path:
    """Write the page of a comparison, with the plots drawn of it, to `path`. Every text from a run is escaped.

    Its curves open with the horizontal axis `x`, of `plots.X_AXES`.
    """
    styles = looks(found.considered["variant"])
    rankings = {verdict.suite: _ranking(found, verdict.suite) for verdict in found.verdicts}
    by_suite = {gallery.suite: gallery for gallery in galleries(found.runs, rankings)}
    sections: list[Section] = []
    for verdict in found.verdicts:
        plots = [
            (plot.caption, inline_svg(plot.svg, plot.caption, f"p{len(sections)}-{plot.name}-"))
            for plot in drawn
            if plot.suite == verdict.suite
        ]
        gallery = by_suite.get(verdict.suite)
        sections.append(_section(found, verdict, rankings[verdict.suite], styles, plots, gallery, x))
    environment = Environment(
        loader=PackageLoader("rfbench.report.render.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html").render(
        sections=sections,
        notes=found.notes.shown(),
        runs=runs_table(found.considered),
        compared=found.runs.runs.height,
        shapes=LOOKS,
        marks={name: LOOKS.index(look) for name, look in styles.items()},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")
    return path


def _section(
    found: Comparison,
    verdict: Verdict,
    ranking: list[str],
    styles: dict[str, Look],
    plots: list[tuple[str, Markup]],
    gallery: Gallery | None,
    x: str,
) -> Section:
    here = pl.col("suite") == verdict.suite
    estimates, pairs = found.estimates.filter(here), found.pairs.filter(here)
    curves = found.curves.filter(here).with_columns(COMPUTE)
    records = [found.runs.records[run] for run in found.runs.runs.filter(here)["run"]]
    reference = references(records).get(verdict.suite)
    beside = None if reference is None else paper_curves(reference)
    by = judged(estimates)
    measure = "" if by.is_empty() else by["measure"][0]
    return Section(
        verdict,
        measure,
        ranking,
        line(verdict, estimates, found.contrasts.filter(here), curves),
        facts(records),
        standings(estimates, curves),
        as_json(chart_data(curves, styles, ranking, measure, x, beside)),
        plots,
        gallery,
        matrices(pairs, digits_by_measure(estimates)),
        suite_tables(found, verdict.suite),
    )


def _ranking(found: Comparison, suite: str) -> list[str]:
    """A suite's algorithms, the one that ends best first; by name where there is nothing to judge by."""
    best = ranked(judged(found.estimates.filter(suite=suite)))["variant"].to_list()
    others = found.runs.runs.filter(suite=suite)["variant"].unique().sort()
    return [*best, *(name for name in others if name not in best)]


def as_json(data: object) -> Markup:
    """JSON that no text of a run can break out of."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def inline_svg(path: Path, name: str, prefix: str) -> Markup:
    """The plot as part of the page: named, in the page's ink and background, with ids of its own."""
    svg = path.read_text(encoding="utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg)
    svg = svg.replace(INK, "currentColor").replace("#ffffff", "none")
    for index, colour in enumerate(COLOURS):
        svg = svg.replace(colour.lower(), f"var(--mark-{index})")
    return Markup('<svg role="img" aria-label="{}"').format(name) + Markup(svg.removeprefix("<svg"))
