"""What happened to a run's prompts before the first image, counted, so that nothing is left out in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypedDict

from rfbench.prompts.base import PromptSet
from rfbench.suite import Suite


class SetCounts(TypedDict):
    """One prompt set, or one evaluation set."""

    prompts: int
    left_out: int  # equal to an earlier one; of an evaluation set: also in a set that it excludes
    truncated: int  # longer than the text encoder reads


class PromptCounts(TypedDict):
    """``run.json``'s account of the prompts."""

    sets: dict[str, SetCounts]
    evaluation: dict[str, SetCounts]


def count_prompts(
    suite: Suite,
    prompts: Mapping[str, PromptSet],
    chosen: Mapping[str, list[str]],
    truncates: Callable[[str], bool],
) -> PromptCounts:
    """Counts of the suite's prompt sets, and of the prompts ``chosen`` for its evaluation sets."""

    def counts(these: Iterable[str], size: int, left_out: int) -> SetCounts:
        return {"prompts": size, "left_out": left_out, "truncated": sum(map(truncates, these))}

    return {
        "sets": {name: counts(these, len(these), these.duplicates) for name, these in prompts.items()},
        "evaluation": {
            name: counts(these, len(these), suite.evaluation.sets[name].num_prompts - len(these))
            for name, these in chosen.items()
        },
    }


def remarks(counts: PromptCounts) -> list[str]:
    """A sentence per set in which something was left out or cut."""
    found = []
    for name, these in counts["sets"].items():
        if these["left_out"]:
            found.append(
                f"prompts.{name}: {these['left_out']:,} prompts equal an earlier one, {these['prompts']:,} remain"
            )
        if these["truncated"]:
            found.append(f"prompts.{name}: the text encoder does not read the end of {these['truncated']:,} prompts")
    for name, these in counts["evaluation"].items():
        if these["left_out"]:
            found.append(
                f"evaluation.sets.{name}: {these['left_out']:,} prompts are in a set that it excludes, "
                f"{these['prompts']:,} remain"
            )
    return found
