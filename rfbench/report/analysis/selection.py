"""Which runs may stand in one table, and what the reader must be told about the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from rfbench.errors import InputError
from rfbench.records.identity import Purpose, differences
from rfbench.report.load import Runs


def select_finished(runs: Runs, allow_mixed: bool = False) -> tuple[Runs, list[str]]:
    """The finished runs with evaluations, one per suite, algorithm and seed; and notes on everything left out.

    Runs of one suite are refused when their suite hash or budget differs, and runs of one algorithm when its settings
    differ, unless `allow_mixed`. Suites of different names are never averaged: each has its own rows.
    """
    notes = [f"left out: {problem}" for problem in runs.problems]
    if runs.runs.is_empty():
        damaged = "".join(f"\n  {problem}" for problem in runs.problems)
        raise InputError(
            "no readable run in these folders (a run is a folder with a run.json); "
            f"make one with `rfbench run prdp --suite tiny-shapes`{damaged}"
        )
    notes += _left_out(runs.runs)
    evaluated = runs.evals["run"].unique()
    done = runs.runs.filter(pl.col("status") == "finished", pl.col("run").is_in(evaluated.implode()))
    if done.is_empty():
        lines = [_progress(row) for row in runs.runs.iter_rows(named=True)]
        raise InputError(
            "no finished run with evaluations; wait for one (`rfbench watch` shows progress) or continue one with "
            "`rfbench run … --resume`:\n" + _some(lines)
        )
    if not allow_mixed:
        _refuse_mixed(runs, done)
    kept, duplicate_notes = _drop_duplicates(done)
    return runs.keep(kept["run"].to_list()), notes + duplicate_notes + _thin_evidence(kept)


def _left_out(runs: pl.DataFrame) -> list[str]:
    notes = []
    for row in runs.filter(pl.col("status") != "finished").sort("run").iter_rows(named=True):
        notes.append(f"left out: {_progress(row).strip()}")
    for (suite, algorithm), group in runs.group_by("suite", "variant", maintain_order=True):
        failed = group.filter(pl.col("status") == "failed").height
        if failed:
            share = f"{failed} of {group.height} runs of {algorithm}"
            notes.append(f"{suite}: {share} failed; its figures come from the others alone")
    return notes


def _progress(row: dict[str, Any]) -> str:
    at = f"epoch {_or(row['epoch'], '?')} of {_or(row['epochs'], '?')}"
    why = f": {row['error']}" if row["error"] else ""
    return f"  {row['run']} is {row['status']} at {at}{why}"


def _or(value: Any, otherwise: str) -> Any:
    return otherwise if value is None else value


def _some(lines: Sequence[str], limit: int = 10) -> str:
    more = [f"  … and {len(lines) - limit} more"] if len(lines) > limit else []
    return "\n".join([*lines[:limit], *more])


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
                + _some([f"    {difference}" for difference in found])
                + "\ncompare their folders one at a time, or pass --allow-mixed to pool them all the same"
            )


def _drop_duplicates(done: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Two runs of one seed are not two samples: the one updated last counts."""
    key = ["suite", "suite_hash", "variant", "seed"]
    kept = done.sort("updated_at", nulls_last=False, maintain_order=True).unique(key, keep="last", maintain_order=True)
    notes = []
    for row in done.join(kept.select("run"), on="run", how="anti").sort("run").iter_rows(named=True):
        winner = kept.filter(*(pl.col(k) == row[k] for k in key))["run"][0]
        notes.append(f"left out: {row['run']} repeats seed {row['seed']} of {winner}, which is newer and counts")
    return kept.sort("run"), notes


def _thin_evidence(kept: pl.DataFrame) -> list[str]:
    notes = []
    for (suite,), group in kept.group_by("suite", maintain_order=True):
        algorithms = group["variant"].unique().to_list()
        if len(algorithms) == 1:
            notes.append(f"{suite}: only {algorithms[0]} has finished runs, so there is nothing to compare it with")
        single = group.group_by("variant").len().filter(pl.col("len") == 1).sort("variant")
        if not single.is_empty():
            names = ", ".join(single["variant"])
            notes.append(f"{suite}: one seed of {names}; with one seed nothing can be told from noise. Run more seeds")
    return notes
