"""The plots of a comparison: which there are, and what their captions say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from rfbench.errors import InputError
from rfbench.report.analysis import paper
from rfbench.report.analysis.curves import COMPUTE
from rfbench.report.frames import suites
from rfbench.report.render import plots, tradeoffs
from rfbench.report.render.colours import looks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rfbench.report.comparison import Comparison


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


def draw(found: Comparison, x: str = "queries") -> list[Drawing]:
    """Every plot of a comparison, suite by suite. `x` is the horizontal axis, of `plots.X_AXES`.

    All variants share one set of colours, those without a finished run too.
    """
    check_axis(x)
    drawn = []
    references = paper.references(found.runs.records.values())
    styles = looks(found.considered["variant"])
    with plots.plotting():
        for suite, curves in suites(found.curves.with_columns(COMPUTE)):
            beside = paper.paper_curves(references[suite]) if suite in references else None
            estimates = found.estimates.filter(pl.col("suite") == suite)
            for name, caption, figure in _figures(curves, estimates, styles, beside, x):
                if figure is not None:
                    drawn.append(Drawing(suite, name, caption, figure))
    return drawn


def _figures(
    curves: pl.DataFrame, estimates: pl.DataFrame, styles: plots.Styles, beside: pl.DataFrame | None, x: str
) -> Iterator[tuple[str, str, Figure | None]]:
    band = "Lines: mean change from the base model; bands: its 95 % interval over seeds and prompts."
    if beside is not None and (beside.is_empty() or plots.X_AXES[x][0] not in beside.columns):
        beside = None
    if beside is not None:
        band += f" Thin lines: {paper.SOURCE}."
    yield (
        "comparison",
        f"Each reward against {plots.X_AXES[x][1]}. {band}",
        plots.reward_curves(curves, styles, x, beside),
    )
    yield (
        "held-out",
        "Reward hacking: gain on rewards that were not trained against gain on the training reward, epoch by epoch; "
        "the last epoch is marked. A path that turns down while it moves right hacks the reward.",
        tradeoffs.held_out_against_trained(curves, styles),
    )
    yield (
        "seen-unseen",
        "Final gain over the base model on seen and on unseen prompts, with 95 % intervals.",
        tradeoffs.seen_against_unseen(estimates, styles),
    )
    yield (
        "kl",
        "Gain on the training reward against the KL divergence to the base model, epoch by epoch; the last epoch is "
        "marked.",
        tradeoffs.kl_against_reward(curves, styles),
    )
