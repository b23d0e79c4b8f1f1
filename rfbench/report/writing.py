"""The files of a comparison: tables, plots and the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from rfbench.errors import InputError
from rfbench.report.analysis import paper
from rfbench.report.comparison import Comparison
from rfbench.report.frames import suites
from rfbench.report.render import markdown, plots, tradeoffs
from rfbench.report.render.colours import looks
from rfbench.report.render.page import Plot, write_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CSV = {"table": "comparison.csv"} | {
    name: f"{name}.csv" for name in ("estimates", "contrasts", "pairs", "curves", "stability")
}


@dataclass(frozen=True)
class Written:
    """What `write` made: every file, and the plots among them."""

    files: list[Path]
    plots: list[Plot]


def write(found: Comparison, out: Path | str, x: str = "queries", html: Path | str | None = None) -> Written:
    """Write tables and plots into `out`, and the page to `html`. `x`, of `plots.X_AXES`, is the horizontal axis."""
    if x not in plots.X_AXES:
        raise InputError(f"--x {x} is unknown; use one of {', '.join(plots.X_AXES)}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for name, file in CSV.items():
        getattr(found, name).write_csv(out / file)
        files.append(out / file)
    (out / "comparison.md").write_text(markdown.to_markdown(found), encoding="utf-8")
    drawn = _write_plots(found, out, x)
    files += [out / "comparison.md", *(path for plot in drawn for path in (plot.png, plot.svg))]
    if html is not None:
        files.append(write_page(found, drawn, Path(html)))
    return Written(files, drawn)


def _write_plots(found: Comparison, out: Path, x: str) -> list[Plot]:
    written = []
    names = found.runs.runs["suite"].unique()
    references = paper.references(found.runs.records.values())
    styles = looks(found.considered["variant"])
    with plots.plotting():
        for suite, evals in suites(found.runs.evals.sort("suite", maintain_order=True)):
            curves = paper.paper_curves(references[suite]) if suite in references else None
            estimates = found.estimates.filter(pl.col("suite") == suite)
            for name, caption, figure in _figures(evals, estimates, styles, curves, x):
                if figure is not None:
                    stem = name if len(names) == 1 else f"{name}-{_file_name(suite)}"
                    written.append(Plot(suite, name, caption, *plots.save(figure, out, stem)))
    return written


def _figures(
    evals: pl.DataFrame, estimates: pl.DataFrame, styles: plots.Styles, curves: pl.DataFrame | None, x: str
) -> Iterator[tuple[str, str, Figure | None]]:
    band = "Lines: mean over seeds; bands: one standard deviation over seeds. Dotted: the base model."
    if curves is not None and (curves.is_empty() or x == "seconds"):
        curves = None
    if curves is not None:
        band += f" Thin lines: {paper.SOURCE}."
    yield (
        "comparison",
        f"Each reward against {plots.X_AXES[x][1]}. {band}",
        plots.reward_curves(evals, styles, x, curves),
    )
    yield (
        "held-out",
        "Reward hacking: gain on rewards that were not trained against gain on the training reward, epoch by epoch; "
        "the last epoch is marked. A path that turns down while it moves right hacks the reward.",
        tradeoffs.held_out_against_trained(evals, styles),
    )
    yield (
        "seen-unseen",
        "Final gain over the base model on seen (filled) and unseen (hollow) prompts, with 95 % intervals.",
        tradeoffs.seen_against_unseen(estimates, styles),
    )
    yield (
        "kl",
        "Training reward against the KL divergence to the base model, epoch by epoch; the last epoch is marked.",
        tradeoffs.kl_against_reward(evals, styles),
    )


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
