"""The stability map: what a learning rate three times off, or a noisy reward, does to each algorithm.

Of the runs in `sensitivity/`, which the sweeps of README.md made: two suites that are `large-shapes` cut short, without
and with noise on the reward that training sees. A cell is the gain over the base model in that reward on seen prompts,
and how many runs collapsed; a dash where no run is finished.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rfbench.report import analyse
from rfbench.report.render.plots import PAGE_WIDTH, plotting
from rfbench.report.render.tables import markdown_row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUITES = {"sensitivity": "no noise", "sensitivity-noisy": "noise"}
FACTORS = {"x0_333": "rate × 1/3", "": "rate × 1", "x3": "rate × 3"}


class Cell(NamedTuple):
    """The runs of an algorithm at one learning rate and noise."""

    gain: float
    collapsed: int
    seeds: int

    def __str__(self) -> str:
        if self.seeds > 1:
            return f"{self.gain:+.2f} ({self.collapsed} of {self.seeds} collapsed)"
        return f"{self.gain:+.2f}" + (" (collapsed)" if self.collapsed else "")


Cells = dict[tuple[str, str, str], Cell]


def read(runs: Sequence[Path]) -> Cells:
    """The cell of each (algorithm, suite, factor) of the finished runs in some folders."""
    rows = analyse(runs).estimates.filter(role="training", seen=True)
    cells = {}
    for (suite, label), group in rows.group_by("suite", "variant"):
        algorithm, _, factor = str(label).partition("-learning_rate-")
        values: dict[str, Any] = {row["statistic"]: row for row in group.iter_rows(named=True)}
        seeds = values["collapsed"]["seeds"]
        collapsed = round(values["collapsed"]["estimate"] * seeds)
        cells[algorithm, str(suite), factor] = Cell(values["gain"]["estimate"], collapsed, seeds)
    return cells


def to_markdown(cells: Cells) -> str:
    """A row per algorithm, a column per noise and learning rate."""
    columns = [(suite, factor) for suite in SUITES for factor in FACTORS]
    lines = [["variant", *(f"{SUITES[suite]}, {FACTORS[factor]}" for suite, factor in columns)]]
    lines.append(["---", *["---:"] * len(columns)])
    lines += [[name, *(str(cells.get((name, *column), "–")) for column in columns)] for name in _best_first(cells)]
    return "\n".join(markdown_row(line) for line in lines)


def draw(cells: Cells) -> Figure:
    """The same as a picture: blue above the base model, red below it, the colours on a logarithmic scale beyond 0.3."""
    from matplotlib.colors import SymLogNorm
    from matplotlib.figure import Figure

    names, reach = _best_first(cells), max(abs(cell.gain) for cell in cells.values())
    norm = SymLogNorm(0.3, vmin=-reach, vmax=reach)
    figure = Figure(figsize=(PAGE_WIDTH, 0.5 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(SUITES), sharey=True)
    for axis, (suite, title) in zip(axes, SUITES.items(), strict=True):
        grid = [[cells.get((name, suite, factor)) for factor in FACTORS] for name in names]
        gains = [[cell.gain if cell else math.nan for cell in row] for row in grid]
        axis.imshow(gains, cmap="RdBu", norm=norm, aspect="auto")
        for y, row in enumerate(grid):
            for x, cell in enumerate(row):
                ink = "white" if cell and abs(norm(cell.gain) - 0.5) > 0.3 else "black"
                axis.text(x, y, str(cell or "–").replace(" (", "\n("), ha="center", va="center", color=ink)
        axis.set_xticks(range(len(FACTORS)), list(FACTORS.values()))
        axis.set_yticks(range(len(names)), names)
        axis.tick_params(length=0)
        axis.set_title(title, loc="left")
        axis.grid(visible=False)
    return figure


def write(cells: Cells, path: Path) -> None:
    with plotting():
        draw(cells).savefig(path, metadata={"Software": None})


def _best_first(cells: Cells) -> list[str]:
    """The algorithms by their gain at their own learning rate, without noise."""
    names = {name for name, _, _ in cells}
    return sorted(names, key=lambda name: -cells[name, "sensitivity", ""].gain)
