"""The prompts of the embedded world."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from rfbench.core.prompts import PromptSet
from rfbench.suite.settings import Settings
from rfbench.worlds.shapes import grammar


class ShapesPromptsConfig(Settings):
    """Settings of the embedded world's prompts."""

    split: Literal["small", "train", "unseen"] = Field(
        "train", description="45 fixed prompts, all that pretraining may see, or those it never saw"
    )


class ShapesPrompts(PromptSet):
    """A split of the shapes grammar's 217,728 sentences."""

    Config = ShapesPromptsConfig

    def __init__(self, config: ShapesPromptsConfig) -> None:
        self._prompts = grammar.split(config.split)

    def __len__(self) -> int:
        return len(self._prompts)

    def __getitem__(self, index: int) -> str:
        return self._prompts[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._prompts)
