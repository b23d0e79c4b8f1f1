"""`rfbench compare`: read runs, judge them, write the files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from rfbench.report.analysis import gains, paper
from rfbench.report.analysis.estimates import estimate, pairs
from rfbench.report.analysis.selection import select_finished
from rfbench.report.analysis.statistics import stability
from rfbench.report.analysis.verdict import Verdict, verdicts
from rfbench.report.load import Runs, load
from rfbench.report.render import tables

FRAMES = ("table", "estimates", "pairs", "hacking", "seen_unseen", "paper", "stability")


@dataclass(frozen=True)
class Plot:
    """One plot of one suite, as it was written."""

    suite: str
    name: str
    caption: str
    png: Path
    svg: Path


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. Each frame's rows are described where it is made.

    `runs`: the runs compared (`load`). `considered`: a row per readable run, whatever its status. `notes`: what was
    left out and what cannot be concluded. `stability`: a row per run (`statistics`). `estimates`, `pairs`: over seeds,
    with intervals (`estimates`). `hacking`, `seen_unseen`: where gains hold (`gains`). `paper`: beside the paper
    (`paper`). `table`: the short table (`tables`).
    """

    runs: Runs
    considered: pl.DataFrame
    notes: list[str]
    verdicts: list[Verdict]
    table: pl.DataFrame
    estimates: pl.DataFrame
    pairs: pl.DataFrame
    hacking: pl.DataFrame
    seen_unseen: pl.DataFrame
    paper: pl.DataFrame
    stability: pl.DataFrame
    plots: list[Plot] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def to_json(self) -> str:
        """Everything but the curves, as JSON: verdicts, notes, and each frame as a list of rows."""
        data = {
            "verdicts": [{"suite": v.suite, "headline": v.headline, "sentences": v.sentences} for v in self.verdicts],
            "notes": self.notes,
            **{name: getattr(self, name).to_dicts() for name in FRAMES},
            "files": [str(file) for file in self.files],
        }
        return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False)


def analyse(folders: Sequence[Path | str], allow_mixed: bool = False) -> Comparison:
    """Compare the finished runs at or below `folders`; nothing is written."""
    everything = load(folders)
    runs, notes = select_finished(everything, allow_mixed)
    statistics = stability(runs.evals)
    estimates, paired = estimate(runs.finals, statistics), pairs(runs.finals)
    hacking = gains.reward_hacking(estimates)
    beside = paper.beside_paper(runs.records.values(), statistics)
    return Comparison(
        runs=runs,
        considered=everything.runs,
        notes=notes,
        verdicts=verdicts(estimates, paired, statistics, hacking, beside),
        table=tables.summarise(statistics),
        estimates=estimates,
        pairs=paired,
        hacking=hacking,
        seen_unseen=gains.seen_unseen(estimates),
        paper=beside,
        stability=statistics,
    )
