"""What happened to a run's prompts before the first image, counted, so that nothing is left out in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rfbench.core.prompts import PromptSet
from rfbench.suite.suite import Suite


def count_prompts(
    suite: Suite,
    prompts: Mapping[str, PromptSet],
    chosen: Mapping[str, list[str]],
    truncates: Callable[[str], bool],
) -> dict[str, Any]:
    """``run.json``'s account of the suite's prompt sets, and of the prompts ``chosen`` for its evaluation sets.

    duplicates: left out because they equal an earlier one; excluded: left out because a set that the evaluation set
    excludes holds them; truncated: longer than the text encoder reads (training's are counted as they are drawn).
    """
    return {
        "sets": {name: {"prompts": len(these), "duplicates": these.duplicates} for name, these in prompts.items()},
        "evaluation": {
            name: {
                "prompts": len(these),
                "excluded": suite.evaluation.sets[name].num_prompts - len(these),
                "truncated": sum(map(truncates, these)),
            }
            for name, these in chosen.items()
        },
    }


def remarks(counts: dict[str, Any]) -> list[str]:
    """A line per set of which something was left out or is not read to its end."""
    lines = []
    for name, these in counts["sets"].items():
        if these["duplicates"]:
            lines.append(f"prompts.{name}: {these['prompts']:,}, without {these['duplicates']:,} that equal another")
    for name, these in counts["evaluation"].items():
        if these["excluded"]:
            lines.append(
                f"evaluation.sets.{name}: {these['prompts']:,}, without {these['excluded']:,} of the sets it excludes"
            )
        if these["truncated"]:
            lines.append(f"evaluation.sets.{name}: the text encoder does not read {these['truncated']:,} to the end")
    return lines
