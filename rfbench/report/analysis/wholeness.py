"""Whether a run holds every evaluation that its own suite asks for, and whether its figures agree with one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import polars as pl

from rfbench.records.format import RunRecord

Epochs = dict[tuple[str, str], list[int]]  # of each prompt set and measure
ROUNDING = 1e-4  # of the largest prompt's mean: records round these to five digits, and not the mean over prompts


def lacking(records: Mapping[str, RunRecord], evals: pl.DataFrame) -> dict[str, list[str]]:
    """What each run's evaluations lack or have too much, in words; empty for a whole run.

    `records` are run.json by run, `evals` the rows of `Runs.evals`. Measures are the suite's rewards and whatever else
    the run measured at any time. A setting that the record does not hold is not checked.
    """
    here = evals.lazy().filter(pl.col("run").is_in(list(records)))
    epochs = here.group_by("run", "evaluation_set", "measure").agg("epoch").collect()
    sizes = _sizes(here)
    contradictions = _contradictions({run: record.suite for run, record in records.items()}, here)
    found: dict[str, Epochs] = {run: {} for run in records}
    for run, evaluation_set, measure, of in epochs.iter_rows():
        found[run][evaluation_set, measure] = of
    return {
        run: [*_missing(record, found[run]), *_prompt_problems(record.suite, sizes.get(run, [])), *contradictions[run]]
        for run, record in records.items()
    }


def _missing(record: RunRecord, found: Epochs) -> list[str]:
    """Prompt sets, measures and epochs that a run lacks or has too much."""
    suite = record.suite
    evaluation = _table(suite, "evaluation")
    epochs = _epochs(suite.get("epochs"), evaluation.get("every")) or set().union(*found.values())
    sets, evaluated = _table(evaluation, "sets"), {evaluation_set for evaluation_set, _ in found}
    measures = _rewards(suite, evaluation) | {measure for _, measure in found}
    problems = [f"nothing of prompt set {name}" for name in sorted(sets.keys() - evaluated)]
    if record.epoch != record.epochs:
        problems.append(f"it is at epoch {record.epoch} of {record.epochs}")
    problems += [f"{name} is no prompt set of its suite" for name in sorted(evaluated - sets.keys()) if sets]
    for evaluation_set in sorted(evaluated):
        for measure in sorted(measures):
            have = set(found.get((evaluation_set, measure), ()))
            problems += _epoch_problems(f"{measure} on {evaluation_set}", epochs, have)
    return problems


def _epoch_problems(what: str, expected: set[int], have: set[int]) -> list[str]:
    problems = []
    if expected - have:
        problems.append(f"no {what} {_at(expected - have)}")
    if have - expected:
        problems.append(f"{what} {_at(have - expected)}, where the suite has no evaluation")
    return problems


def _at(epochs: set[int]) -> str:
    first, more = sorted(epochs)[:5], len(epochs) - 5
    listed = ", ".join(map(str, first)) + (f" and {more} more" if more > 0 else "")
    return f"at epoch {listed}" if len(epochs) == 1 else f"at epochs {listed}"


def _epochs(last: Any, every: Any) -> set[int]:
    """Epochs at which a run is evaluated; empty where the record does not say."""
    if not isinstance(last, int) or not isinstance(every, int) or every < 1:
        return set()
    return {*range(0, last, every), last}


def _rewards(suite: dict[str, Any], evaluation: dict[str, Any]) -> set[str]:
    held_out = evaluation.get("held_out_rewards") or []
    tables = [suite.get("reward"), *(held_out if isinstance(held_out, list) else [])]
    return {table["name"] for table in tables if isinstance(table, dict) and isinstance(table.get("name"), str)}


Sizes = tuple[str, int | None, int | None, list[int]]  # a prompt set; fewest and most prompts; numbers of images


def _sizes(evals: pl.LazyFrame) -> dict[str, list[Sizes]]:
    """How large the evaluations of each run are, by prompt set; records need not hold the means of prompts."""
    prompts = pl.col("per_prompt").list.len().replace(0, None)
    of_sets = evals.group_by("run", "evaluation_set").agg(
        prompts.min().alias("fewest"), prompts.max().alias("most"), pl.col("images").drop_nulls().unique()
    )
    found: dict[str, list[Sizes]] = {}
    for run, *sizes in of_sets.sort("run", "evaluation_set").collect().iter_rows():
        found.setdefault(run, []).append(cast(Sizes, tuple(sizes)))
    return found


def _prompt_problems(suite: dict[str, Any], sizes: list[Sizes]) -> Iterator[str]:
    """Prompts and images that an evaluation of a set lacks. A set that excludes prompts may hold fewer than asked."""
    sets = _table(_table(suite, "evaluation"), "sets")
    for name, fewest, most, images in sizes:
        settings = _table(sets, name)
        asked, copies = settings.get("num_prompts"), settings.get("images_per_prompt")
        if fewest is None:
            continue
        if fewest != most:
            yield f"{fewest} prompts of {name} in one evaluation and {most} in another"
        elif isinstance(asked, int) and not settings.get("exclude") and fewest != asked:
            yield f"{fewest} prompts of {name}, where the suite asks for {asked}"
        elif isinstance(copies, int) and set(images) - {fewest * copies}:
            others = min(set(images) - {fewest * copies})
            yield f"{others} images of {name}, where the suite asks for {fewest * copies}"


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _contradictions(suites: dict[str, dict[str, Any]], evals: pl.LazyFrame) -> dict[str, list[str]]:
    """Figures that each run's record itself contradicts, as an edited one does: the first of each kind."""
    budgets = {run: _table(suite, "budget").get("reward_queries_per_epoch") for run, suite in suites.items()}
    rewards = {run: _table(suite, "reward").get("name") for run, suite in suites.items()}
    whole = [budget if isinstance(budget, int) else None for budget in budgets.values()]
    named = [reward if isinstance(reward, str) else "" for reward in rewards.values()]
    schema = {"run": pl.String(), "budget": pl.Int64(), "reward": pl.String()}
    asked = pl.LazyFrame({"run": list(suites), "budget": whole, "reward": named}, schema=schema)
    prompts = pl.col("per_prompt").list
    apart = (pl.col("mean") - prompts.mean()).abs() > ROUNDING * pl.max_horizontal(prompts.max(), -prompts.min())
    overspent = pl.col("reward_queries") != pl.col("budget") * pl.col("epoch")
    misnamed = (pl.col("measure") == pl.col("reward")) != (pl.col("role") == "training")
    rows = evals.select(pl.exclude("per_prompt")).join(asked, on="run", maintain_order="left")
    wrong = [evals.filter(apart), rows.filter(overspent), rows.filter(misnamed)]
    edited, spent, called = pl.collect_all([kind.unique("run", keep="first", maintain_order=True) for kind in wrong])
    found: dict[str, list[str]] = {run: [] for run in suites}
    for row in edited.iter_rows(named=True):
        mean = sum(row["per_prompt"]) / len(row["per_prompt"])
        what = f"{_name(row)} is {row['mean']:.6g}, where its prompts have a mean of {mean:.6g}"
        found[row["run"]].append(what)
    for row in spent.iter_rows(named=True):
        what = f"after {row['reward_queries']} queries, where its suite has {row['budget'] * row['epoch']}"
        found[row["run"]].append(f"{_name(row)} is {what}")
    for row in called.iter_rows(named=True):
        what = f"called {row['role']}, where its suite trains on {rewards[row['run']]}"
        found[row["run"]].append(f"{_name(row)} is {what}")
    return found


def _name(row: dict[str, Any]) -> str:
    return f"{row['measure']} on {row['evaluation_set']} at epoch {row['epoch']}"
