"""Whether a run holds every evaluation that its own suite asks for, and whether its figures agree with one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from rfbench.records.format import RunRecord

ROUNDING = 1e-4  # of the largest prompt's mean: records round these to five digits, and not the mean over prompts


def lacking(record: RunRecord, evals: pl.DataFrame) -> list[str]:
    """What a run's evaluations lack or have too much, in words; empty for a whole run.

    `record` is its run.json, `evals` its rows of `Runs.evals`. Measures are the suite's rewards and whatever else the
    run measured at any time. A setting that the record does not hold is not checked.
    """
    suite = record.suite
    evaluation = _table(suite, "evaluation")
    epochs = _epochs(suite.get("epochs"), evaluation.get("every")) or set(evals["epoch"])
    sets = _table(evaluation, "sets")
    measures = _rewards(suite, evaluation) | set(evals["measure"])
    found = {key: set(group["epoch"]) for key, group in evals.group_by("evaluation_set", "measure")}
    problems = [f"nothing of prompt set {name}" for name in sorted(sets.keys() - set(evals["evaluation_set"]))]
    if record.epoch != record.epochs:
        problems.append(f"it is at epoch {record.epoch} of {record.epochs}")
    problems += [
        f"{name} is no prompt set of its suite" for name in sorted(set(evals["evaluation_set"]) - sets.keys()) if sets
    ]
    for evaluation_set in sorted(set(evals["evaluation_set"])):
        for measure in sorted(measures):
            have = found.get((evaluation_set, measure), set())
            problems += _epoch_problems(f"{measure} on {evaluation_set}", epochs, have)
    return [*problems, *_prompt_problems(sets, evals), *_contradictions(suite, evals)]


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


def _prompt_problems(sets: dict[str, Any], evals: pl.DataFrame) -> Iterator[str]:
    """Prompts and images that an evaluation of a set lacks. A set that excludes prompts may hold fewer than asked."""
    for (name,), rows in evals.sort("evaluation_set").group_by("evaluation_set", maintain_order=True):
        settings = _table(sets, str(name))
        prompts = rows["per_prompt"].list.len().replace(0, None).drop_nulls()  # records need not hold them
        asked, copies = settings.get("num_prompts"), settings.get("images_per_prompt")
        if prompts.n_unique() > 1:
            yield f"{prompts.min()} prompts of {name} in one evaluation and {prompts.max()} in another"
        elif prompts.len() and isinstance(asked, int) and not settings.get("exclude") and prompts[0] != asked:
            yield f"{prompts[0]} prompts of {name}, where the suite asks for {asked}"
        elif prompts.len() and isinstance(copies, int):
            images = set(rows["images"].drop_nulls()) - {prompts[0] * copies}
            if images:
                yield f"{min(images)} images of {name}, where the suite asks for {prompts[0] * copies}"


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _contradictions(suite: dict[str, Any], evals: pl.DataFrame) -> Iterator[str]:
    """Figures that the record itself contradicts, as an edited one does."""
    prompts = pl.col("per_prompt").list
    apart = (pl.col("mean") - prompts.mean()).abs() > ROUNDING * pl.max_horizontal(prompts.max(), -prompts.min())
    for row in evals.filter(apart).head(1).iter_rows(named=True):
        mean = sum(row["per_prompt"]) / len(row["per_prompt"])
        yield f"{_name(row)} is {row['mean']:.6g}, where its prompts have a mean of {mean:.6g}"
    budget = _table(suite, "budget").get("reward_queries_per_epoch")
    if isinstance(budget, int):
        for row in evals.filter(pl.col("reward_queries") != budget * pl.col("epoch")).head(1).iter_rows(named=True):
            yield f"{_name(row)} is after {row['reward_queries']} queries, where its suite has {budget * row['epoch']}"
    reward = _table(suite, "reward").get("name")
    trained = pl.col("measure") == pl.lit(reward if isinstance(reward, str) else "")
    for row in evals.filter(trained != (pl.col("role") == "training")).head(1).iter_rows(named=True):
        yield f"{_name(row)} is called {row['role']}, where its suite trains on {reward}"


def _name(row: dict[str, Any]) -> str:
    return f"{row['measure']} on {row['evaluation_set']} at epoch {row['epoch']}"
