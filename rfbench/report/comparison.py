"""What a comparison is, and how it is made of run folders: frames and verdicts, without a file or a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from rfbench.report.analysis import gains, paper
from rfbench.report.analysis.contrasts import contrasts
from rfbench.report.analysis.curves import mean_curves, read_curves
from rfbench.report.analysis.estimates import estimate
from rfbench.report.analysis.notes import Notes
from rfbench.report.analysis.pairs import pairs
from rfbench.report.analysis.selection import select_finished
from rfbench.report.analysis.short_table import summarise
from rfbench.report.analysis.statistics import stability
from rfbench.report.analysis.verdict import Evidence, Verdict, verdicts
from rfbench.report.load import Runs, load
from rfbench.report.shipped import tell_apart

FRAMES = ("table", "estimates", "contrasts", "pairs", "curves", "hacking", "seen_unseen", "paper", "stability")


@dataclass(frozen=True)
class Comparison:
    """What `analyse` found. Each frame's rows are described where it is made.

    `runs`: the runs compared (`load`). `considered`: a row per readable run, whatever its status. `notes`: what was
    left out and what cannot be concluded. `stability`: a row per run (`statistics`). `estimates`: over seeds, with
    intervals (`estimates`). `contrasts`: what the verdict compares, corrected for their number (`contrasts`). `pairs`:
    every two algorithms (`pairs`). `curves`: rewards and costs, epoch by epoch (`curves`). `hacking`, `seen_unseen`:
    where gains hold (`gains`). `paper`: beside the paper (`paper`). `table`: the short table (`short_table`).
    """

    runs: Runs
    considered: pl.DataFrame
    notes: Notes
    verdicts: list[Verdict]
    table: pl.DataFrame
    estimates: pl.DataFrame
    contrasts: pl.DataFrame
    pairs: pl.DataFrame
    curves: pl.DataFrame
    hacking: pl.DataFrame
    seen_unseen: pl.DataFrame
    paper: pl.DataFrame
    stability: pl.DataFrame

    def to_json(self, files: Sequence[Path] = ()) -> str:
        """Verdicts, notes, each frame as a list of rows, and the `files` that were written, as JSON."""
        data = {
            "verdicts": [vars(verdict) for verdict in self.verdicts],
            "notes": list(self.notes),
            **{name: getattr(self, name).to_dicts() for name in FRAMES},
            "files": [str(file) for file in files],
        }
        return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False)


def analyse(folders: Sequence[Path | str], allow_mixed: bool = False) -> Comparison:
    """Compare the finished and whole runs at or below `folders`; nothing is written.

    An `InputError` where there is none, or where runs must not be averaged, unless `allow_mixed`.
    """
    everything, apart = tell_apart(load(folders))
    considered = everything.runs
    runs, found = select_finished(everything, allow_mixed)
    del everything  # with 1,000 runs the means of all prompts are most of the memory
    notes = replace(found, summaries=(*apart, *found.summaries))
    curves = read_curves(runs.evals)
    statistics = stability(runs.evals)
    estimates, paired, means = estimate(curves, statistics), pairs(curves), mean_curves(curves)
    stated = contrasts(estimates, paired)
    hacking = gains.reward_hacking(estimates)
    beside = paper.beside_paper(runs.records.values(), statistics)
    return Comparison(
        runs=runs,
        considered=considered,
        notes=notes,
        verdicts=verdicts(Evidence(estimates, paired, stated, means, statistics, hacking, beside)),
        table=summarise(statistics, estimates, means),
        estimates=estimates,
        contrasts=stated,
        pairs=paired,
        curves=means,
        hacking=hacking,
        seen_unseen=gains.seen_unseen(estimates),
        paper=beside,
        stability=statistics,
    )
