"""The 45 common animals of DDPO's experiments, which PRDP's small-scale experiments use too."""

from __future__ import annotations

from pydantic import Field, field_validator

from rfbench.core.prompts import PromptSet
from rfbench.suite.settings import Settings

# fmt: off
ANIMALS = (
    "cat", "dog", "horse", "monkey", "rabbit", "zebra", "spider", "bird", "sheep", "deer", "cow", "goat", "lion",
    "tiger", "bear", "raccoon", "fox", "wolf", "lizard", "beetle", "ant", "butterfly", "fish", "shark", "whale",
    "dolphin", "squirrel", "mouse", "rat", "snake", "turtle", "frog", "chicken", "duck", "goose", "bee", "pig",
    "turkey", "fly", "llama", "camel", "bat", "gorilla", "hedgehog", "kangaroo",
)
# fmt: on


class AnimalsConfig(Settings):
    """Settings of the animals."""

    template: str = Field(
        "{}", description="the prompt, with {} for the animal; PRDP's small experiments: 'A painting of a {}'"
    )

    @field_validator("template")
    @classmethod
    def _has_one_gap(cls, template: str) -> str:
        if template.count("{}") != 1:
            raise ValueError("must contain {} once, for the animal")
        return template


class Animals(PromptSet):
    """45 common animals, bare or in a sentence.

    The template is taken as it is: the PRDP paper writes "A painting of a <animal>", so the ant's prompt is "A painting
    of a ant".
    """

    Config = AnimalsConfig

    def __init__(self, config: AnimalsConfig) -> None:
        self._prompts = [config.template.replace("{}", animal) for animal in ANIMALS]

    def __len__(self) -> int:
        return len(self._prompts)

    def __getitem__(self, index: int) -> str:
        return self._prompts[index]
