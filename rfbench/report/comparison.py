"""`rfbench compare`: read runs, summarise them, write the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from rfbench.report import plots, tables
from rfbench.report.estimates import estimate, pairs
from rfbench.report.load import Runs, load
from rfbench.report.selection import select_finished
from rfbench.report.statistics import stability


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. `runs` are those compared; `notes` say what was left out and what cannot be concluded."""

    runs: Runs
    stability: pl.DataFrame
    estimates: pl.DataFrame
    pairs: pl.DataFrame
    table: pl.DataFrame
    notes: list[str]
    files: list[Path]


def compare(folders: Sequence[Path | str], out: Path | str, allow_mixed: bool = False) -> Comparison:
    """Compare the finished runs below `folders` and write comparison.csv, .md, .png and .svg into `out`."""
    runs, notes = select_finished(load(folders), allow_mixed)
    statistics = stability(runs.evals)
    table = tables.summarise(statistics)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    table.write_csv(out / "comparison.csv")
    (out / "comparison.md").write_text(tables.to_markdown(table), encoding="utf-8")
    files = [out / "comparison.csv", out / "comparison.md", *_write_plots(runs, out)]
    estimates, paired = estimate(runs.finals, statistics), pairs(runs.finals)
    return Comparison(runs, statistics, estimates, paired, table, notes, files)


def _write_plots(runs: Runs, out: Path) -> list[Path]:
    files = []
    with plots.plotting():
        groups = list(tables.suites(runs.evals.sort("suite")))
        for suite, evals in groups:
            name = "comparison" if len(groups) == 1 else f"comparison-{_file_name(suite)}"
            files += plots.save(plots.reward_curves(evals), out, name)
    return files


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
