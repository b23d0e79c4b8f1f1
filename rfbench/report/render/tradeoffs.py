"""Plots of one thing against another: KL and reward, seen and unseen, trained and held out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rfbench.report.frames import order, prompt_set
from rfbench.report.render.limits import of_estimates
from rfbench.report.render.plots import (
    BASE_LINE,
    COLUMN_WIDTH,
    PAGE_WIDTH,
    Styles,
    few_ticks,
    legend,
    limit,
    panel_grid,
    panel_title,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLACE = ["variant", "evaluation_set", "seen", "epoch"]


def kl_against_reward(curves: pl.DataFrame, styles: Styles) -> Figure | None:
    """The gain on the training reward against the KL divergence to the base model, in nats; a line through the epochs.

    `curves` has the rows of `mean_curves` of one suite.
    """
    kl = curves.filter(pl.col("measure") == "kl").select(*PLACE, pl.col("mean").alias("x"))
    reward = curves.filter(pl.col("role") == "training")
    points = order(reward.join(kl, on=PLACE), pl.col("epoch"))
    if points.is_empty():
        return None
    panels = points.partition_by("measure", "evaluation_set", maintain_order=True)
    figure, axes = panel_grid(len(panels), min(len(panels), 3))
    for axis, panel in zip(axes, panels, strict=True):
        axis.axhline(0, **BASE_LINE)
        _draw_paths(axis, panel, styles)
        limit(axis, panel, across="diagnostic")
        axis.set_title(wrapped(f"{prompt_set(panel.row(0, named=True))} prompts"), loc="left")
        axis.set_xlabel("KL to the base model (nats)")
        few_ticks(axis)
    axes[0].set_ylabel(wrapped(f"gain, {panels[0]['measure'][0]}"))
    legend(figure, {name: styles[name] for name in sorted(curves["variant"].unique())})
    return figure


def held_out_against_trained(curves: pl.DataFrame, styles: Styles) -> Figure | None:
    """Gain on each held-out reward against the gain on the training reward; a line through the epochs.

    A path that turns down while it moves right is a reward being hacked. `curves` as above.
    """
    trained = curves.filter(pl.col("role") == "training").select(*PLACE, pl.col("gain").alias("x"))
    held_out = curves.filter(pl.col("role") == "held-out")
    points = order(held_out.join(trained, on=PLACE), pl.col("epoch"))
    if points.is_empty():
        return None
    panels = points.partition_by("measure", "evaluation_set", maintain_order=True)
    columns = min(points["evaluation_set"].n_unique(), 3)
    figure, axes = panel_grid(len(panels), columns)
    for index, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        axis.axhline(0, **BASE_LINE)
        axis.axvline(0, **BASE_LINE)
        _draw_paths(axis, panel, styles)
        limit(axis, panel, across="training")
        axis.set_title(panel_title(panel), loc="left")
        if index % columns == 0:
            axis.set_ylabel("held-out gain")
        if index >= len(panels) - columns:
            axis.set_xlabel("training gain")
    legend(figure, {name: styles[name] for name in sorted(curves["variant"].unique())})
    return figure


def seen_against_unseen(estimates: pl.DataFrame, styles: Styles) -> Figure | None:
    """Final gain of each algorithm on each prompt set, with 95 % intervals, seen sets first."""
    gains = order(estimates.filter(pl.col("statistic") == "gain", pl.col("role") != "diagnostic"))
    if gains.is_empty() or gains["seen"].all() or not gains["seen"].any():
        return None
    panels = gains.partition_by("measure", maintain_order=True)
    rows = gains["variant"].n_unique() * (gains["evaluation_set"].n_unique() + 0.6)
    longest = max(len(label) for label in _gain_labels(gains))
    width = COLUMN_WIDTH if len(panels) == 1 or longest <= 16 else PAGE_WIDTH
    figure, axes = panel_grid(len(panels), min(len(panels), 2), 0.35 + 0.13 * rows, width)
    for axis, panel in zip(axes, panels, strict=True):
        _draw_gains(axis, panel, styles)
        unit = panel["unit"][0]
        axis.set_title(wrapped(panel["measure"][0]), loc="left")
        axis.set_xlabel(wrapped(f"gain ({unit})" if unit else "gain", 20))
    return figure


def _draw_gains(axis: Axes, panel: pl.DataFrame, styles: Styles) -> None:
    ticks, values, labels, y = [], [], [], 0.0
    for algorithm in (
        panel.group_by("variant")
        .agg(pl.col("estimate").max())
        .sort("estimate", "variant", descending=[True, False])["variant"]
    ):
        look = styles[algorithm]
        rows = panel.filter(pl.col("variant") == algorithm)
        labels += _gain_labels(rows)
        for row in rows.iter_rows(named=True):
            if row["low"] is not None:
                axis.plot([row["low"], row["high"]], [y, y], color=look.colour, linewidth=1)
            face = "white" if look.hollow else look.colour
            axis.plot(row["estimate"], y, marker=look.marker, color=look.colour, markerfacecolor=face, markersize=4)
            ticks.append(y)
            values.append(row["estimate"])
            y += 1
        y += 0.6
    axis.axvline(0, **BASE_LINE)
    axis.set_yticks(ticks, labels)
    axis.set_ylim(ticks[-1] + 0.6, -0.6)  # the first on top, and room for whole markers
    limits = of_estimates(panel)
    axis.set_xlim(limits.low, limits.high)
    for tick, value in zip(ticks, values, strict=True):
        if not limits.low <= value <= limits.high:
            axis.text(limits.low, tick, f" ← {value:.3g}", va="center", fontsize=5.5)
    axis.grid(False, axis="y")


def _gain_labels(rows: pl.DataFrame) -> list[str]:
    return [f"{row['variant']}, {prompt_set(row)}" for row in rows.iter_rows(named=True)]


def _draw_paths(axis: Axes, panel: pl.DataFrame, styles: Styles) -> None:
    """The mean path over seeds of each algorithm; its last evaluation is marked."""
    for path in panel.partition_by("variant", maintain_order=True):
        look = styles[path["variant"][0]]
        points = path.sort("epoch")
        axis.plot(points["x"], points["gain"], color=look.colour, linestyle=look.line)
        axis.plot(
            points["x"][-1], points["gain"][-1], color=look.colour, marker=look.marker, mfc=look.fill, markersize=4.5
        )
