"""The ladder from DDPO to PRDP: what each cell ends at, and each pair of cells that differ in one thing.

Of the runs on `large-shapes` in `results/reference` and `results/studies/ladder`, which the sweeps of
benchmarks/README.md made. A contrast is the second cell less the first, seed by seed, with a t interval over the seeds
that both have; a dash where fewer than two are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from rfbench.report import analyse
from rfbench.report.analysis.intervals import Interval, mean
from rfbench.report.render.plots import PAGE_WIDTH, plotting
from rfbench.report.render.tables import markdown_row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUITE = "large-shapes"
CELLS = (
    ("ddpo", "128 × 1, batch's mean and std, 4 steps, clip 3e-4"),
    ("ddpo-16x8", "16 × 8, batch's mean and std"),
    ("ddpo-group-mean", "16 × 8, prompt's mean, batch's std"),
    ("ddpo-group", "16 × 8, prompt's mean and std"),
    ("ddpo-group-1-step", "the same in one step, which no clip can bind"),
    ("prdp-k1-no-kl", "prompt's mean, no std, no KL term, one step"),
    ("prdp-k1", "PRDP at K = 1: the same with its KL term"),
    ("prdp-no-kl", "PRDP at K = 2 without its KL term"),
    ("prdp", "PRDP, K = 2"),
    ("prdp-no-clip", "PRDP, K = 2, without its clip"),
    ("ddpo-clip-1e-3", "DDPO with PRDP's clip"),
    ("ddpo-1-step", "DDPO in one step"),
    ("ddpo-2-steps", "DDPO in two steps"),
    ("prdp-beta-100", "PRDP with beta ten times larger"),
    ("prdp-k1-rate-x2", "PRDP at K = 1, at twice the learning rate"),
    ("ddpo-group-2-passes", "`ddpo-group-1-step` with a second pass"),
    ("ddpo-2-passes", "DDPO with a second pass"),
)
CONTRASTS = (
    ("layout: 16 prompts × 8 for 128 × 1", "ddpo", "ddpo-16x8"),
    ("baseline: the prompt's mean for the batch's", "ddpo-16x8", "ddpo-group-mean"),
    ("std: the prompt's for the batch's", "ddpo-group-mean", "ddpo-group"),
    ("4 clipped steps for one", "ddpo-group-1-step", "ddpo-group"),
    ("no std", "ddpo-group-1-step", "prdp-k1-no-kl"),
    ("KL term, at one update", "prdp-k1-no-kl", "prdp-k1"),
    ("KL term, at two", "prdp-no-kl", "prdp"),
    ("PRDP's second update", "prdp-k1", "prdp"),
    ("PRDP's clip", "prdp-no-clip", "prdp"),
    ("DDPO's clip: 1e-3 for 3e-4", "ddpo", "ddpo-clip-1e-3"),
    ("DDPO's steps: 2 for 1", "ddpo-1-step", "ddpo-2-steps"),
    ("DDPO's steps: 4 for 2", "ddpo-2-steps", "ddpo"),
    ("twice the rate, at one update", "prdp-k1", "prdp-k1-rate-x2"),
    ("a second update for twice the rate", "prdp-k1-rate-x2", "prdp"),
    ("a second pass of one step", "ddpo-group-1-step", "ddpo-group-2-passes"),
    ("two passes of one step for one of four", "ddpo-group", "ddpo-group-2-passes"),
    ("a second pass of four steps", "ddpo", "ddpo-2-passes"),
    ("a second update without a clip", "prdp-k1", "prdp-no-clip"),
    ("all that is left: loss, KL term, no std, clip", "ddpo-group-2-passes", "prdp"),
)
OUTCOMES = ("seen", "unseen", "KL")


Ends = dict[str, dict[int, float]]  # a number of each run, by cell and seed
Contrasts = Sequence[tuple[str, str, str]]  # what changes, from, to


class Ladder(NamedTuple):
    """What the runs ended at: ``ends`` by outcome, gains of the trained reward and the KL in nats.

    ``lows`` has a row per cell with the means of its largest drop and of its epochs below the base model, seen prompts.
    """

    ends: dict[str, Ends]
    lows: pl.DataFrame


def read(runs: Sequence[Path], suite: str = SUITE) -> Ladder:
    """Of the finished runs of a suite in some folders."""
    rows = analyse(runs).stability.filter(suite=suite).with_columns(pl.col("variant").str.replace(r" \(.*\)$", ""))
    reward = rows.filter(role="training")
    parts = {
        "seen": reward.filter(seen=True).select("variant", "seed", end="gain"),
        "unseen": reward.filter(seen=False).select("variant", "seed", end="gain"),
        "KL": rows.filter(measure="kl", seen=True).select("variant", "seed", end="final"),
    }
    ends: dict[str, Ends] = {outcome: {} for outcome in OUTCOMES}
    for outcome, part in parts.items():
        for variant, seed, end in part.iter_rows():
            ends[outcome].setdefault(variant, {})[seed] = end
    lows = reward.filter(seen=True).group_by("variant").agg(pl.col("drawdown", "epochs_below_base").mean())
    return Ladder(ends, lows)


def contrast(ends: Ends, first: str, second: str) -> tuple[Interval, int] | None:
    """``second`` less ``first`` over the seeds that both have, and their number; None for fewer than two."""
    a, b = ends.get(first, {}), ends.get(second, {})
    differences = [[b[seed] - a[seed]] for seed in sorted(a.keys() & b.keys())]
    return (mean(np.array(differences)).interval(), len(differences)) if len(differences) > 1 else None


def cells_table(ladder: Ladder) -> str:
    """A row for each cell that was run."""
    ends = ladder.ends
    heads = ["seeds", "gain, seen", "gain, unseen", "KL, nats", "largest drop", "epochs below base"]
    lines = [["cell", "what it is", *heads]]
    lines.append(["---", "---", *["---:"] * 6])
    of = {row["variant"]: row for row in ladder.lows.iter_rows(named=True)}
    for cell, what in CELLS:
        if cell not in ends["seen"]:
            continue
        gains = [f"{np.mean(list(ends[outcome][cell].values())):+.2f}" for outcome in ("seen", "unseen")]
        kl = f"{np.mean(list(ends['KL'][cell].values())):.0f}"
        low = [f"{of[cell]['drawdown']:.2f}", f"{of[cell]['epochs_below_base']:.0f}"]
        lines.append([f"`{cell}`", what, str(len(ends["seen"][cell])), *gains, kl, *low])
    return "\n".join(markdown_row(line) for line in lines)


def contrasts_table(ladder: Ladder, contrasts: Contrasts = CONTRASTS) -> str:
    """A row for each contrast; in bold what can be told from 0 by its own interval."""
    ends = ladder.ends
    lines = [["what changes", "from", "to", "seeds", "gain, seen", "gain, unseen", "KL, nats"]]
    lines.append(["---", "---", "---", *["---:"] * 4])
    for what, first, second in contrasts:
        found = {outcome: contrast(ends[outcome], first, second) for outcome in OUTCOMES}
        if found["seen"] is None:
            continue
        numbers = [_shown(pair[0], 0 if outcome == "KL" else 2) for outcome, pair in found.items() if pair]
        lines.append([what, f"`{first}`", f"`{second}`", str(found["seen"][1]), *numbers])
    return "\n".join(markdown_row(line) for line in lines)


def _shown(found: Interval, digits: int) -> str:
    low, high = found.low, found.high
    assert low is not None
    assert high is not None
    text = f"{found.estimate:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def draw(ladder: Ladder, contrasts: Contrasts) -> Figure:
    """The contrasts' intervals, one line each: black on seen prompts, grey on unseen ones."""
    from matplotlib.figure import Figure

    ends = ladder.ends
    rows = [row for row in contrasts if contrast(ends["seen"], *row[1:]) is not None]
    figure = Figure(figsize=(PAGE_WIDTH, 0.8 + 0.42 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for place, (_, first, second) in enumerate(rows):
        for outcome, colour, offset in (("seen", "black", -0.12), ("unseen", "0.6", 0.12)):
            pair = contrast(ends[outcome], first, second)
            assert pair is not None
            found, _ = pair
            axis.plot([found.low, found.high], [place + offset] * 2, color=colour, linewidth=1.6)
            axis.plot(found.estimate, place + offset, "o", color=colour, markersize=4)
    axis.axvline(0, color="0.4", linewidth=0.8)
    axis.set_yticks(range(len(rows)), [f"{what}\n{first} → {second}" for what, first, second in rows], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("change of the gain in the trained reward, 95 % interval over paired seeds")
    axis.plot([], [], "o-", color="black", markersize=4, label="seen prompts")
    axis.plot([], [], "o-", color="0.6", markersize=4, label="unseen prompts")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def write(ladder: Ladder, path: Path, contrasts: Contrasts = CONTRASTS) -> None:
    with plotting():
        draw(ladder, contrasts).savefig(path, metadata={"Software": None})
