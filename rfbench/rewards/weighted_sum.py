"""A weighted sum of rewards, such as the PRDP paper's 10 PickScore + 2 HPSv2 + 0.05 aesthetic."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.reward import Reward, check_shape
from rfbench.plugins.component import Component, find_component
from rfbench.suite.settings import Settings
from rfbench.suite.suite import PluginRef


class Term(PluginRef):
    """A reward with its own settings beside ``name``, and its weight."""

    weight: float


class WeightedSumConfig(Settings):
    """Settings of a weighted sum."""

    terms: tuple[Term, ...] = Field(min_length=1, description="rewards with their settings, each with a weight")

    def parts(self) -> list[Component]:
        """The terms' rewards, found and configured; an ``InputError`` names a wrong setting."""
        return [find_component("rewards", term) for term in self.terms]

    def model_post_init(self, context: object) -> None:
        self.parts()


class WeightedSum(Reward):
    """The sum of weight x score over the terms."""

    Config = WeightedSumConfig

    @classmethod
    def components(cls, config: WeightedSumConfig) -> dict[str, Component]:
        return {f"terms.{index}": part for index, part in enumerate(config.parts())}

    def __init__(self, config: WeightedSumConfig, device: torch.device) -> None:
        self._terms = [
            (term.weight, part.name, part.make(device)) for term, part in zip(config.terms, config.parts(), strict=True)
        ]
        self.unit = " + ".join(f"{weight:g} {name}" for weight, name, _ in self._terms)
        self.version = "; ".join(f"{name} {reward.version}" for _, name, reward in self._terms)
        self.uses_prompts = any(reward.uses_prompts for _, _, reward in self._terms)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        total = torch.zeros(len(images))
        for weight, name, reward in self._terms:
            scores = reward(images, prompts)
            check_shape(scores, name, len(images), "a term of the weighted sum")
            total += weight * scores.float().cpu()
        return total
