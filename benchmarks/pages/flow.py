"""The same algorithms with the same settings on `small-shapes` and on `small-shapes-flow`, from the arena's runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfbench.report import analyse
from rfbench.report.render.headline import gain_cell
from rfbench.report.render.tables import markdown_row

FLOW = "small-shapes-flow-arena"
SUITES = {"small-shapes-arena": "diffusion", FLOW: "flow"}
COLUMNS = (  # head, measure or role, prompts, digits
    ("reward, seen", "training", "seen", 2),
    ("unseen", "training", "unseen", 2),
    ("gold, seen", "shapes-gold", "seen", 3),
)


def flow_table(runs: Sequence[Path]) -> str:
    """Gains with 95 % intervals, and KL, of every algorithm that ran on both; the best on a flow first."""
    estimates = analyse([run for run in runs if run.parts[-3] in SUITES]).estimates
    gains: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in estimates.filter(statistic="gain").iter_rows(named=True):
        for what in (row["measure"], row["role"]):
            gains[row["suite"], row["variant"], what, row["evaluation_set"]] = row
    diffusion, flow = ({variant for s, variant, *_ in gains if s == suite} for suite in SUITES)
    heads = [f"{head}, {process}" for head, *_ in (*COLUMNS, ("KL",)) for process in SUITES.values()]
    lines = [["algorithm", "seeds", *heads], ["---", "---:", *["---:"] * len(heads)]]
    for variant in sorted(diffusion & flow, key=lambda name: -gains[FLOW, name, "training", "seen"]["estimate"]):
        seeds = {gains[suite, variant, "training", "seen"]["seeds"] for suite in SUITES}
        cells = [
            gain_cell(gains[s, variant, what, where], digits) for _, what, where, digits in COLUMNS for s in SUITES
        ]
        kl = [f"{gains[suite, variant, 'kl', 'seen']['estimate']:.0f}" for suite in SUITES]
        lines.append([f"`{variant}`", " and ".join(map(str, sorted(seeds))), *cells, *kl])
    return "\n".join(map(markdown_row, lines))
