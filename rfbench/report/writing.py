"""What `rfbench compare` writes: tables, plots and the page of a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from rfbench.names import as_file_name
from rfbench.report.comparison import Comparison
from rfbench.report.drawing import check_axis, draw
from rfbench.report.render import markdown, plots
from rfbench.report.render.page import Plot, write_page

FORMULA = r"^[=+\-@\t\r]"  # how a cell begins that a spreadsheet computes
CSV = {"table": "comparison.csv"} | {
    name: f"{name}.csv" for name in ("estimates", "contrasts", "pairs", "curves", "stability")
}


@dataclass(frozen=True)
class Written:
    """What `write` made: every file, and the plots among them."""

    files: list[Path]
    plots: list[Plot]


def write(
    found: Comparison, out: Path | str, x: str = "queries", html: Path | str | None = None, figures: bool = True
) -> Written:
    """Write tables and plots into `out`, and the page to `html`. `x`, of `plots.X_AXES`, is the horizontal axis.

    Drawing takes most of the time: `figures=False` leaves it out, where no page needs it.
    """
    check_axis(x)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for name, file in CSV.items():
        _write_csv(getattr(found, name), out / file)
        files.append(out / file)
    (out / "comparison.md").write_text(markdown.to_markdown(found), encoding="utf-8")
    drawn = _write_plots(found, out, x) if figures or html is not None else []
    files += [out / "comparison.md", *(path for plot in drawn for path in (plot.png, plot.svg))]
    if html is not None:
        files.append(write_page(found, drawn, Path(html), x))
    return Written(files, drawn)


def _write_csv(frame: pl.DataFrame, path: Path) -> None:
    """The frame, with an apostrophe before each text that a spreadsheet would take for a formula."""
    text = pl.col(pl.String)
    harmless = frame.with_columns(pl.when(text.str.contains(FORMULA)).then("'" + text).otherwise(text).name.keep())
    path.write_text(harmless.write_csv(), encoding="utf-8")  # polars itself takes no path that is not UTF-8


def _write_plots(found: Comparison, out: Path, x: str) -> list[Plot]:
    one = found.runs.runs["suite"].n_unique() == 1
    written = []
    for drawing in draw(found, x):
        stem = drawing.name if one else f"{drawing.name}-{as_file_name(drawing.suite)}"
        written.append(Plot(drawing.suite, drawing.name, drawing.caption, *plots.save(drawing.figure, out, stem)))
    return written
