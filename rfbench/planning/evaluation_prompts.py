"""Which prompts the evaluation sets hold: drawn from their prompt sets, without those that must not be there."""

from __future__ import annotations

from collections.abc import Mapping

from rfbench.core.prompts import PromptSet, evaluation_prompts, normalise
from rfbench.errors import InputError
from rfbench.suite.suite import EvaluationSet, Suite


def choose_prompts(suite: Suite, prompts: Mapping[str, PromptSet]) -> dict[str, list[str]]:
    """Each evaluation set's prompts; an ``InputError`` where prompts said to be unseen are training prompts.

    Two prompts are the same when they are equal after normalisation. Prompt sets may be large: they are read once,
    and nothing of them is kept.
    """
    sets = suite.evaluation.sets
    drawn = {
        name: evaluation_prompts(prompts[settings.prompts], settings.num_prompts, suite.evaluation.seed, name)
        for name, settings in sets.items()
    }
    wanted = {normalise(prompt) for set_prompts in drawn.values() for prompt in set_prompts}
    compared = {"train"} if any(not settings.seen for settings in sets.values()) else set()
    compared.update(name for settings in sets.values() for name in settings.exclude or ())
    found = {name: wanted.intersection(map(normalise, prompts[name])) for name in compared}
    chosen = {}
    for name, settings in sets.items():
        excluded = set().union(*(found[other] for other in settings.exclude or ()))
        chosen[name] = [prompt for prompt in drawn[name] if normalise(prompt) not in excluded]
        _check(name, settings, drawn[name], chosen[name], found.get("train", set()))
    return chosen


def _check(name: str, settings: EvaluationSet, drawn: list[str], chosen: list[str], training: set[str]) -> None:
    if not chosen:
        raise InputError(
            f"evaluation.sets.{name} is empty: all of its {len(drawn)} prompts are also in {settings.exclude}; "
            f"use other prompts, or a shorter evaluation.sets.{name}.exclude"
        )
    shared = [] if settings.seen else [prompt for prompt in chosen if normalise(prompt) in training]
    if shared:
        raise InputError(
            f"evaluation.sets.{name} is said to be unseen, but {len(shared)} of its {len(chosen)} prompts are "
            f"training prompts, the first {shared[0]!r}; leave them out with --set "
            f"'evaluation.sets.{name}.exclude=[\"train\"]', or set evaluation.sets.{name}.seen=true"
        )
