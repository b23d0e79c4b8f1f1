"""Writes the tables of README.md and the docs from the records that ship, as `rfbench compare` makes them.

    python -m rfbench_benchmarks.pages.tables

A table stands between a line such as ``<!-- headline SUITE MEASURE -->`` or ``<!-- ladder cells -->``, which
`every_table` names, and ``<!-- end -->``; a test keeps them equal to the records. The pictures of the map, of the
ladder and of the arena are drawn, too.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rfbench.report import analyse
from rfbench.report.frames import suites
from rfbench.report.render.headline import tables
from rfbench_benchmarks.pages import arena, flow, ladder, precision, probes, stability_map, studies, trials

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/results.md", "docs/causes.md", "docs/arena.md", "docs/processes.md", "docs/precision.md")
RESULTS, BASELINES = "results/reference", "results/studies/baselines"
SENSITIVITY, LADDER = "results/studies/sensitivity", "results/studies/ladder"
HETEROGENEITY, HORIZON = "results/studies/heterogeneity", "results/studies/horizon"
TRIALS, ARENA, PROBES = "results/studies/tuning", "results/studies/arena", "results/studies/probe"
PRECISION = "results/studies/precision"
BLOCK = re.compile(r"(<!-- ([^\n]+) -->\n)(?:.*?\n)??(<!-- end -->)", re.DOTALL)


def reference_runs(folder: str = RESULTS) -> list[Path]:
    """The run folders below ``folder`` that are part of the repository; those that a user has added are not."""
    command = ["git", "-C", str(ROOT), "ls-files", f"{folder}/*/run.json"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [(ROOT / line).parent for line in listed.splitlines()]


def headlines(runs: Sequence[Path], place: str = "headline") -> dict[str, str]:
    """The headline table of each suite and measure of some run folders, by the name of its place."""
    found = analyse(runs)
    return {
        f"{place} {suite} {heading.partition(' ')[0]}": table
        for suite, rows in suites(found.estimates)
        for heading, table in tables(rows, found.curves.filter(suite=suite))
    }


def every_table(cells: stability_map.Cells, rungs: ladder.Ladder, contest: ladder.Ladder) -> dict[str, str]:
    """Every table of the pages, by the name of its place; ``contest``: the arena's runs."""
    rounded = [*reference_runs(LADDER), *reference_runs(PRECISION)]
    return (
        headlines(reference_runs())
        | headlines(reference_runs(BASELINES), "baselines")
        | headlines(reference_runs(ARENA), "arena")
        | probes.probe_tables(ROOT / PROBES)
        | {
            "differences": studies.differences_table(reference_runs(), reference_runs(HETEROGENEITY)),
            "horizon": studies.horizon_table(reference_runs(HORIZON)),
            "trials": trials.trials_table(reference_runs(TRIALS)),
            "precision cells": precision.cells_table(rounded),
            "precision contrasts": ladder.contrasts_table(precision.read(rounded), precision.CONTRASTS),
            "precision second step": precision.second_step_table(ROOT / PRECISION),
            "flow": flow.flow_table(reference_runs(ARENA)),
            "arena contrasts": ladder.contrasts_table(contest, arena.CONTRASTS),
            "stability map": stability_map.to_markdown(cells),
            "ladder cells": ladder.cells_table(rungs),
            "ladder contrasts": ladder.contrasts_table(rungs),
        }
    )


def filled(page: str, found: dict[str, str]) -> str:
    """``page`` with every marked table written anew."""
    return BLOCK.sub(lambda block: f"{block[1]}{found[block[2]]}\n{block[3]}", page)


def main() -> None:
    cells = stability_map.read(reference_runs(SENSITIVITY))
    stability_map.write(cells, ROOT / "docs" / "images" / "stability-map.png")
    rungs = ladder.read([*reference_runs(), *reference_runs(LADDER)])
    ladder.write(rungs, ROOT / "docs" / "images" / "ladder.png")
    contest = ladder.read(reference_runs(ARENA), arena.SUITE)
    ladder.write(contest, ROOT / "docs" / "images" / "arena.png", arena.CONTRASTS)
    found = every_table(cells, rungs, contest)
    for name in PAGES:
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
