"""The same algorithms with the same settings on `small-shapes` and on `small-shapes-flow`, from the arena's runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfbench.report import analyse
from rfbench.report.render.tables import markdown_row

SUITES = {"small-shapes-arena": "diffusion", "small-shapes-flow-arena": "flow"}
SETS = ("seen", "unseen")


def flow_table(runs: Sequence[Path]) -> str:
    """Gains in the trained reward with 95 % intervals, and KL, of all that ran on both; the best on a flow first."""
    rows = [row for row in analyse([run for run in runs if _suite(run) in SUITES]).estimates.iter_rows(named=True)]
    gains = {_place(row): row for row in rows if (row["role"], row["statistic"]) == ("training", "gain")}
    kl = {_place(row): row for row in rows if (row["measure"], row["statistic"]) == ("kl", "final")}
    diffusion, flow = ({variant for s, variant, _ in gains if s == suite} for suite in SUITES)
    heads = [f"gain, {name}, {process}" for name in SETS for process in SUITES.values()]
    lines = [["algorithm", "seeds", *heads, *(f"KL, {process}" for process in SUITES.values())]]
    lines.append(["---", "---", *["---:"] * 6])
    for variant in sorted(
        diffusion & flow, key=lambda name: -gains["small-shapes-flow-arena", name, "seen"]["estimate"]
    ):
        seeds = ", ".join(str(gains[suite, variant, "seen"]["seeds"]) for suite in SUITES)
        cells = [_gain(gains[suite, variant, name]) for name in SETS for suite in SUITES]
        lines.append([f"`{variant}`", seeds, *cells, *(f"{kl[s, variant, 'seen']['estimate']:.0f}" for s in SUITES)])
    return "\n".join(map(markdown_row, lines))


def _suite(run: Path) -> str:
    return run.parts[-3]


def _place(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["suite"], row["variant"], row["evaluation_set"]


def _gain(row: dict[str, Any]) -> str:
    text = f"{row['estimate']:+.2f}"
    return text if row["low"] is None else f"{text} [{row['low']:+.2f}, {row['high']:+.2f}]"
