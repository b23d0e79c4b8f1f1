"""Which runs may stand in one table, and what the reader must be told about the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from rfbench.errors import InputError
from rfbench.records.identity import Purpose, differences
from rfbench.report.analysis.notes import (
    Notes,
    equal_seeds,
    lost_runs,
    mixed_code,
    mixed_devices,
    other_samplers,
    thin_evidence,
)
from rfbench.report.analysis.wholeness import lacking
from rfbench.report.load import Runs


def select_finished(runs: Runs, allow_mixed: bool = False) -> tuple[Runs, Notes]:
    """The finished and whole runs, one per suite, algorithm and seed, ordered by these; and notes on everything else.

    Runs of one suite are refused when their suite hash or budget differs, and runs of one algorithm when its settings
    differ, unless `allow_mixed`. Suites of different names are never averaged: each has its own rows.
    """
    if runs.runs.is_empty():
        damaged = "".join(f"\n  {problem}" for problem in runs.problems)
        raise InputError(
            "no run to compare in these folders (a run is a folder with a run.json); "
            f"make one with `rfbench run prdp --suite tiny-shapes`{damaged}"
        )
    finished = runs.runs.filter(pl.col("status") == "finished")
    lacks = lacking({name: runs.records[name] for name in finished["run"]}, runs.evals)
    whole = finished.filter(~pl.col("run").is_in([name for name, what in lacks.items() if what]))
    if whole.is_empty():
        lines = [_progress(row) for row in runs.runs.iter_rows(named=True)]
        lines += [f"{name} is not whole: {_some(what, 3, '; ')}" for name, what in lacks.items()]
        raise InputError(
            "no finished run with all of its evaluations; wait for one (`rfbench watch` shows progress) or continue "
            "one with `rfbench run … --resume`:\n  " + _some(lines)
        )
    if not allow_mixed:
        _refuse_mixed(runs, whole)
    kept, duplicates = _drop_duplicates(whole)
    incomplete = [f"left out: {name} is not whole: {_some(what, 3, '; ')}" for name, what in lacks.items() if what]
    unfinished = runs.runs.filter(pl.col("status") != "finished").iter_rows(named=True)
    notes = Notes(
        (
            *lost_runs(runs.runs, lacks),
            *thin_evidence(kept),
            *other_samplers(runs, kept),
            *equal_seeds(runs, kept),
            *mixed_code(runs, kept),
            *mixed_devices(runs, kept),
        ),
        (
            *(f"left out: {problem}" for problem in runs.problems),
            *(f"left out: {_progress(row)}" for row in unfinished),
            *incomplete,
            *duplicates,
        ),
    )
    return runs.keep(kept["run"].to_list()), notes


def _progress(row: dict[str, Any]) -> str:
    at = f"epoch {_or(row['epoch'], '?')} of {_or(row['epochs'], '?')}"
    why = f": {row['error']}" if row["error"] else ""
    return f"{row['run']} is {row['status']} at {at}{why}"


def _or(value: Any, otherwise: str) -> Any:
    return otherwise if value is None else value


def _some(lines: Sequence[str], limit: int = 10, separator: str = "\n  ") -> str:
    more = [f"… and {len(lines) - limit} more"] if len(lines) > limit else []
    return separator.join([*lines[:limit], *more])


def _refuse_mixed(runs: Runs, done: pl.DataFrame) -> None:
    for (suite,), group in done.group_by("suite", maintain_order=True):
        _refuse_differing(runs, group["run"], "compare", f"runs of suite {suite} differ")
    for (suite, variant), group in done.group_by("suite", "variant", maintain_order=True):
        _refuse_differing(runs, group["run"], "pool", f"runs of {variant} on {suite} differ")


def _refuse_differing(runs: Runs, names: pl.Series, purpose: Purpose, what: str) -> None:
    for name in names[1:]:
        found = differences(runs.records[names[0]], runs.records[name], purpose)
        if found:
            raise InputError(
                f"{what} and cannot be averaged:\n  {names[0]}\n  {name}\n"
                + _some([f"    {difference}" for difference in found], separator="\n")
                + "\ncompare their folders one at a time, or pass --allow-mixed to pool them all the same"
            )


def _drop_duplicates(done: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Two runs of one seed are not two samples: the one updated last counts. Ordered by suite, algorithm and seed."""
    key = ["suite", "variant", "seed", "suite_hash"]
    kept = done.sort("updated_at", nulls_last=False, maintain_order=True).unique(key, keep="last", maintain_order=True)
    notes = []
    for row in done.join(kept.select("run"), on="run", how="anti").sort("run").iter_rows(named=True):
        winner = kept.filter(*(pl.col(k) == row[k] for k in key))["run"][0]
        notes.append(f"left out: {row['run']} repeats seed {row['seed']} of {winner}, which is newer and counts")
    return kept.sort(key), notes
