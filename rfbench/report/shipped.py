"""Runs that ship with rfbench beside a user's own: shown together, and never pooled unasked.

Reference runs lie in ``reference/<suite>/...`` and those of studies in ``studies/<name>/<suite>/...``; a user's own in
``<suite>/...``. A study takes part where its folder is named (`load.find_run_folders`). Where a suite has runs of
several such places, the reference keeps its names; the others bear theirs.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from rfbench.records.identity import differences
from rfbench.report.load import STUDIES, Runs

REFERENCE, OWN = "reference", "yours"


def collection(run: Path) -> str:
    """Where a folder ``.../<suite>/<variant>/seed-<n>`` belongs: ``reference``, ``studies/<name>`` or ``yours``."""
    above = run.parents[2]
    if above.name == REFERENCE:
        return REFERENCE
    return f"{STUDIES}/{above.name}" if above.parent.name == STUDIES else OWN


def tell_apart(runs: Runs) -> tuple[Runs, list[str]]:
    """The same runs under names that say which are whose, and notes on what cannot be compared.

    A variant of another place than the reference becomes, such as, ``prdp (yours)``; where the runs of that place are
    of another experiment, it is the suite that bears the mark.
    """
    names, notes = [], []
    for (suite,), group in runs.runs.group_by("suite", maintain_order=True):
        places = {run: collection(Path(run).absolute()) for run in group["run"]}
        standing = REFERENCE if REFERENCE in places.values() else min(places.values())
        first = next(run for run, place in places.items() if place == standing)
        for place in sorted(set(places.values()) - {standing}):
            theirs = [run for run, found in places.items() if found == place]
            different = [d for run in theirs for d in differences(runs.records[first], runs.records[run], "compare")]
            if different:
                notes.append(
                    f"{suite} ({place}) stands apart from the {standing} runs of {suite}, which are of another "
                    f"experiment: {different[0]}"
                )
            names += [{"run": run, "mark": f" ({place})", "apart": bool(different)} for run in theirs]
    if not names:
        return runs, []
    marks = pl.DataFrame(names)
    marked, evals, metrics = (_marked(frame, marks) for frame in (runs.runs, runs.evals, runs.metrics))
    return Runs(marked, evals, metrics, runs.records, runs.problems), notes


def _marked(frame: pl.DataFrame, marks: pl.DataFrame) -> pl.DataFrame:
    joined = frame.join(marks, on="run", how="left", maintain_order="left")
    named = {
        "suite": pl.when(pl.col("apart")).then(pl.col("suite") + pl.col("mark")).otherwise(pl.col("suite")),
        "variant": pl.when(~pl.col("apart")).then(pl.col("variant") + pl.col("mark")).otherwise(pl.col("variant")),
    }
    return joined.with_columns(**named).drop("mark", "apart")
