"""What rfbench asks of a prompt set, and how prompts are drawn from one."""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch

from rfbench.core import keyed_random
from rfbench.errors import InputError
from rfbench.hub.sources import Sourced
from rfbench.suite.settings import Settings

NO_TEXT = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")

BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters and signs that are drawn as nothing: Hangul fillers, empty Braille


class PromptSet(Sourced, ABC):
    """An indexable set of prompts, made from its ``Config``; it may be far larger than what a run reads.

    Attributes:
        duplicates: prompts that were left out because they equal an earlier one after normalisation.
    """

    Config: ClassVar[type[Settings]] = Settings
    duplicates: int = 0

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> str: ...

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


def require_text(prompt: str, where: str) -> None:
    """An ``InputError`` where a prompt holds half of a character, or a control character that no text has."""
    found = NO_TEXT.search(prompt)
    if found is None:
        return
    code, shown = ord(found[0]), ascii(prompt[:60])
    if 0xD800 <= code < 0xE000:
        raise InputError(
            f"{where}: U+{code:04X} is half of a character (a lone surrogate), so it is no text; remove it, or write "
            f"U+FFFD in its place: {shown}"
        )
    raise InputError(
        f"{where}: the control character U+{code:04X} is in {shown}; it is no text, or in another encoding than UTF-8, "
        "such as UTF-16; save it as UTF-8"
    )


def is_empty(prompt: str) -> bool:
    """Whether a person sees nothing of it: spaces and characters without a width."""
    return all(sign.isspace() or sign in BLANK or unicodedata.category(sign) == "Cf" for sign in prompt)


def normalise(prompt: str) -> str:
    """The form in which two prompts count as the same: case and spacing apart."""
    return " ".join(prompt.casefold().split())


def epoch_prompts(prompts: PromptSet, count: int, epoch: int, seed: int) -> list[str]:
    """The distinct prompts of an epoch: passes through keyed shufflings of the set, each prompt once a pass at most.

    A pass leaves out the remainder that would not fill an epoch.
    """
    if count > len(prompts):
        raise InputError(
            f"an epoch needs {count} distinct prompts, but prompts.train has {len(prompts)}; "
            "raise images_per_prompt, or lower budget.reward_queries_per_epoch"
        )
    epochs_per_pass = len(prompts) // count
    order = torch.randperm(len(prompts), generator=keyed_random.generator(seed, "prompts", epoch // epochs_per_pass))
    first = epoch % epochs_per_pass * count
    return [prompts[index] for index in order[first : first + count].tolist()]


def evaluation_prompts(prompts: PromptSet, count: int, seed: int, name: str) -> list[str]:
    """``count`` prompts for the evaluation set ``name``: all of them in order, or a keyed sample."""
    if count > len(prompts):
        raise InputError(
            f"evaluation.sets.{name}.num_prompts is {count}, but its prompt set has {len(prompts)}; "
            f"use --set evaluation.sets.{name}.num_prompts={len(prompts)} or fewer"
        )
    if count == len(prompts):
        return list(prompts)
    order = torch.randperm(len(prompts), generator=keyed_random.generator(seed, "evaluation prompts", name))
    return [prompts[index] for index in sorted(order[:count].tolist())]
