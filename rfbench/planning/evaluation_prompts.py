"""Which prompts the evaluation sets hold: drawn from their prompt sets, without those that must not be there."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import islice

from rfbench.core.model import Reading
from rfbench.core.prompts import PromptSet, evaluation_prompts, normalise
from rfbench.errors import InputError
from rfbench.suite.suite import EvaluationSet, Suite

READ_AT_ONCE = 1000  # prompts; a tokenizer takes many at once, and a prompt set may be too large for memory


def choose_prompts(suite: Suite, prompts: Mapping[str, PromptSet], reading: Reading) -> dict[str, list[str]]:
    """Each evaluation set's prompts; an ``InputError`` where prompts said to be unseen are training prompts.

    Two prompts are the same when they are equal after normalisation, or when the model reads the same of both. Prompt
    sets may be large: they are read once, and nothing of them is kept.
    """
    sets = suite.evaluation.sets
    drawn = {
        name: evaluation_prompts(prompts[settings.prompts], settings.num_prompts, suite.evaluation.seed, name)
        for name, settings in sets.items()
    }
    compared = {"train"} if any(not settings.seen for settings in sets.values()) else set()
    compared.update(name for settings in sets.values() for name in settings.exclude or ())
    if not compared:
        return drawn
    keys = {name: _keys(set_prompts, reading) for name, set_prompts in drawn.items()}
    wanted = {key for set_keys in keys.values() for pair in set_keys for key in pair}
    found = {name: _found(prompts[name], wanted, reading) for name in compared}
    chosen = {}
    for name, settings in sets.items():
        excluded = set().union(*(found[other] for other in settings.exclude or ()))
        pairs = [pair for pair in zip(drawn[name], keys[name], strict=True) if excluded.isdisjoint(pair[1])]
        chosen[name] = [prompt for prompt, _ in pairs]
        shared = [prompt for prompt, pair in pairs if not found.get("train", set()).isdisjoint(pair)]
        _check(name, settings, drawn[name], chosen[name], shared)
    return chosen


def _keys(prompts: Sequence[str], reading: Reading) -> list[tuple[Hashable, Hashable]]:
    """Each prompt's normalised text, and what the model reads of it."""
    return [(normalise(prompt), ("read", read)) for prompt, read in zip(prompts, reading(list(prompts)), strict=True)]


def _found(prompts: Iterable[str], wanted: set[Hashable], reading: Reading) -> set[Hashable]:
    """The keys of a prompt set that are ``wanted``."""
    found: set[Hashable] = set()
    rest = iter(prompts)
    while batch := list(islice(rest, READ_AT_ONCE)):
        found |= wanted.intersection(key for pair in _keys(batch, reading) for key in pair)
    return found


def _check(name: str, settings: EvaluationSet, drawn: list[str], chosen: list[str], shared: list[str]) -> None:
    if not chosen:
        raise InputError(
            f"evaluation.sets.{name} is empty: all of its {len(drawn)} prompts are also in {settings.exclude}; "
            f"use other prompts, or a shorter evaluation.sets.{name}.exclude"
        )
    if shared and not settings.seen:
        raise InputError(
            f"evaluation.sets.{name} is said to be unseen, but {len(shared)} of its {len(chosen)} prompts are "
            f"training prompts, or the model reads the same of them, the first {shared[0]!r}; leave them out with "
            f"--set 'evaluation.sets.{name}.exclude=[\"train\"]', or set evaluation.sets.{name}.seen=true"
        )
