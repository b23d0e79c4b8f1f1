"""Plots at the width of a paper's column: 3.4 inches for up to two panels across, 7 for more."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from rfbench.report.frames import order, prompt_set
from rfbench.report.render.colours import Look, looks
from rfbench.report.render.limits import of_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010101"  # text and axes; the page gives it the colour of its own text
Styles = dict[str, Look]  # the look of each algorithm
COLUMN_WIDTH, PAGE_WIDTH = 3.4, 7.0  # inches
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.grid": True,
    "grid.color": "#888888",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 3,
    "svg.hashsalt": "rfbench",
    "figure.dpi": 100,
    "savefig.dpi": 300,
}
BASE_LINE: dict[str, Any] = {"color": "#777777", "linewidth": 0.8, "linestyle": (0, (1, 2))}
X_AXES = {
    "queries": ("reward_queries", "reward queries"),
    "epochs": ("epoch", "epochs"),
    "steps": ("optimizer_steps", "optimizer steps"),
    "calls": ("compute", "network calls, a backward pass as two"),
    "seconds": ("seconds", "training seconds"),
}


@contextmanager
def plotting() -> Iterator[None]:
    """The house's style over matplotlib's own defaults, whatever the user's settings; restored at the end.

    pyplot, which chooses a display and is the user's, is never touched. Imported here, as it takes half a second.
    """
    from matplotlib import style

    with style.context(["default", STYLE]):
        yield


def save(figure: Figure, out: Path, name: str) -> tuple[Path, Path]:
    """PNG and SVG, the same bytes for the same data."""
    png, svg = out / f"{name}.png", out / f"{name}.svg"
    with plotting():
        figure.savefig(png, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return png, svg


def reward_curves(curves: pl.DataFrame, styles: Styles, x: str, paper: pl.DataFrame | None) -> Figure | None:
    """Each reward's gain against `x` (of `X_AXES`), a panel per reward and prompt set, of one suite's `mean_curves`.

    A line's band is the 95 % interval over seeds and prompts. `paper` holds the paper's training curves, drawn thin
    beside the training reward on seen prompts.
    """
    rewards = order(curves.filter(pl.col("role") != "diagnostic"), pl.col("epoch"))
    if rewards.is_empty():
        return None
    panels = rewards.partition_by("measure", "evaluation_set", maintain_order=True)
    columns = min(rewards["evaluation_set"].n_unique(), 3)
    figure, axes = panel_grid(len(panels), columns)
    styles = {name: styles[name] for name in sorted(curves["variant"].unique())}
    column, label = X_AXES[x]
    for index, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        axis.axhline(0, **BASE_LINE, zorder=1)
        for curve in panel.partition_by("variant", maintain_order=True):
            draw_curve(axis, curve, column, styles[curve["variant"][0]])
        if paper is not None and panel["seen"][0] and panel["role"][0] == "training":
            draw_paper(axis, paper, column)
        limit(axis, panel)
        axis.set_title(panel_title(panel), loc="left")
        if index % columns == 0:
            axis.set_ylabel(wrapped(f"gain ({panel['unit'][0]})" if panel["unit"][0] else "gain"))
        few_ticks(axis)
        if index >= len(panels) - columns:
            axis.set_xlabel(wrapped(label))
    legend(figure, styles, paper)
    return figure


def limit(axis: Axes, panel: pl.DataFrame, across: str | None = None) -> None:
    """Give a panel the limits of `gain` in some rows of `mean_curves`, and say in it which curves leave it.

    `across` is the role of the measure in the column `x`, where it is a measure that lies across.
    """
    limits = [of_curves(panel)]
    axis.set_ylim(limits[0].low, limits[0].high)
    if across is not None:
        limits.append(of_curves(panel.with_columns(gain="x", gain_low=None, gain_high=None, role=pl.lit(across))))
        axis.set_xlim(limits[1].low, limits[1].high)
    names = sorted({name for found in limits for name in found.outside})
    text = "\n".join(["beyond the axes:", *names]) if names else ""
    axis.text(0.02, 0.03, text, transform=axis.transAxes, fontsize=5.5, in_layout=False)


def few_ticks(axis: Axes) -> None:
    """At most four intervals along x, in thousands (k) or millions (M) where the numbers are long."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(4))
    if axis.get_xlim()[1] >= 10_000:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def panel_grid(count: int, columns: int, height: float = 1.45, width: float | None = None) -> tuple[Figure, list[Axes]]:
    """`count` axes in rows of `columns`, with room for a legend on top."""
    from matplotlib.figure import Figure

    rows = math.ceil(count / columns)
    width = width or (COLUMN_WIDTH if columns <= 2 else PAGE_WIDTH)
    figure = Figure(figsize=(width, height * rows + 0.45), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    axes = list(grid.flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def panel_title(panel: pl.DataFrame) -> str:
    row = panel.row(0, named=True)
    name = prompt_set(row)
    return f"{wrapped(row['measure'])}\n{wrapped(name if name.endswith(')') else f'{name} prompts')}"


def wrapped(text: str, width: int = 28) -> str:
    """Text in lines that fit a panel."""
    return textwrap.fill(text, width)


def draw_curve(axis: Axes, curve: pl.DataFrame, column: str, look: Look) -> None:
    """The mean gain of one algorithm, with a band that is its 95 % interval."""
    points = curve.sort("epoch").select(pl.col(column, "gain", "gain_low", "gain_high").cast(pl.Float64))
    x, y, low, high = (points[c].fill_null(np.nan).to_numpy() for c in points.columns)
    every = max(1, len(x) // 8)
    axis.plot(
        x, y, color=look.colour, linestyle=look.line, marker=look.marker, mfc=look.fill, markevery=every, zorder=3
    )
    axis.fill_between(x, low, high, color=look.colour, alpha=0.15, lw=0)


def draw_paper(axis: Axes, paper: pl.DataFrame, column: str) -> None:
    """The paper's curves: thin and without markers, in the colour of their algorithm."""
    for curve in paper.partition_by("variant", maintain_order=True):
        look = looks(curve["variant"])[curve["variant"][0]]
        axis.plot(curve[column], curve["gain"], color=look.colour, linewidth=0.7, alpha=0.75, zorder=2)


def legend(figure: Figure, styles: Styles, paper: pl.DataFrame | None = None, base: bool = True) -> None:
    """Algorithms, the base model and the paper's curves, above the panels."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=s.colour, linestyle=s.line, marker=s.marker, mfc=s.fill, label=name)
        for name, s in styles.items()
    ]
    if base:
        handles.append(Line2D([], [], label="base model", **BASE_LINE))
    for name, look in looks(paper["variant"] if paper is not None else []).items():
        handles.append(Line2D([], [], color=look.colour, linewidth=0.7, alpha=0.75, label=f"{name} (paper)"))
    entries = sorted((0.45 + 0.055 * len(str(handle.get_label())) for handle in handles), reverse=True)  # inches
    columns = sum(bool(total <= figure.get_figwidth()) for total in np.cumsum(entries)) or 1
    figure.set_figheight(figure.get_figheight() + 0.14 * (math.ceil(len(handles) / columns) - 1))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, handlelength=2.6)
