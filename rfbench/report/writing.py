"""The files of a comparison: tables, plots and the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from rfbench.report.comparison import Comparison, Plot, analyse
from rfbench.report.drawing import check_axis, draw
from rfbench.report.render import headline, plots, tables
from rfbench.report.render.page import write_page


def compare(
    folders: Sequence[Path | str],
    out: Path | str,
    allow_mixed: bool = False,
    x: str = "queries",
    html: Path | str | None = None,
) -> Comparison:
    """Compare the finished runs below `folders`, with tables and plots written into `out`, and the page to `html`.

    `x` is the plots' horizontal axis: "queries", "epochs" or "seconds".
    """
    check_axis(x)
    found = analyse(folders, allow_mixed)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    found.files.extend(_write_tables(found, out))
    found.plots.extend(_write_plots(found, out, x))
    found.files.extend(path for plot in found.plots for path in (plot.png, plot.svg))
    if html is not None:
        found.files.append(write_page(found, Path(html)))
    return found


def _write_tables(found: Comparison, out: Path) -> list[Path]:
    _write_csv(found.table, out / "comparison.csv")
    text = [*(f"{verdict}\n" for verdict in found.verdicts)]
    text += [headline.to_markdown(found.estimates), tables.to_markdown(found.table)]
    text += [tables.paper_to_markdown(found.paper)] if found.paper.height else []
    (out / "comparison.md").write_text("\n".join(text), encoding="utf-8")
    files = [out / "comparison.csv", out / "comparison.md"]
    for name in ("estimates", "pairs", "stability"):
        _write_csv(getattr(found, name), out / f"{name}.csv")
        files.append(out / f"{name}.csv")
    return files


def _write_csv(frame: pl.DataFrame, path: Path) -> None:
    path.write_text(frame.write_csv(), encoding="utf-8")  # polars itself takes no path that is not UTF-8


def _write_plots(found: Comparison, out: Path, x: str) -> list[Plot]:
    one = found.runs.runs["suite"].n_unique() == 1
    written = []
    for drawing in draw(found.runs, found.estimates, found.considered["variant"], x):
        stem = drawing.name if one else f"{drawing.name}-{_file_name(drawing.suite)}"
        written.append(Plot(drawing.suite, drawing.name, drawing.caption, *plots.save(drawing.figure, out, stem)))
    return written


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
