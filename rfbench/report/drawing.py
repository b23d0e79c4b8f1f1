"""The plots of a comparison: which there are, and what their captions say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from rfbench.errors import InputError
from rfbench.report.analysis import paper
from rfbench.report.analysis.curves import COMPUTE
from rfbench.report.frames import suites
from rfbench.report.load import Runs
from rfbench.report.render import plots, tradeoffs
from rfbench.report.render.colours import looks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Drawing(NamedTuple):
    """One plot of one suite."""

    suite: str
    name: str
    caption: str
    figure: Figure


def check_axis(x: str) -> None:
    """An ``InputError`` where ``x`` is no horizontal axis."""
    if x not in plots.X_AXES:
        raise InputError(f"--x {x} is unknown; use one of {', '.join(plots.X_AXES)}")


def draw(runs: Runs, estimates: pl.DataFrame, variants: Iterable[str], x: str = "queries") -> list[Drawing]:
    """Every plot of some runs, suite by suite.

    `variants` are all that share one set of colours, those without a finished run too. `x` is the horizontal axis, of
    `plots.X_AXES`.
    """
    check_axis(x)
    drawn = []
    references = paper.references(runs.records.values())
    styles = looks(variants)
    with plots.plotting():
        for suite, evals in suites(runs.evals.with_columns(COMPUTE).sort("suite", maintain_order=True)):
            curves = paper.paper_curves(references[suite]) if suite in references else None
            of_suite = estimates.filter(pl.col("suite") == suite)
            for name, caption, figure in _figures(evals, of_suite, styles, curves, x):
                if figure is not None:
                    drawn.append(Drawing(suite, name, caption, figure))
    return drawn


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
