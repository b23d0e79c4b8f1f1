"""A weighted sum of rewards, such as the PRDP paper's 10 PickScore + 2 HPSv2 + 0.05 aesthetic."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.reward import HeadedReward, check_shape
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


class WeightedSum(HeadedReward):
    """The sum of weight x score over the terms, which are its heads."""

    Config = WeightedSumConfig

    @classmethod
    def components(cls, config: WeightedSumConfig) -> dict[str, Component]:
        return {f"terms.{index}": part for index, part in enumerate(config.parts())}

    def __init__(self, config: WeightedSumConfig, device: torch.device) -> None:
        self._terms = {
            head: (term.weight, part.name, part.make(device))
            for head, term, part in zip(_heads(config), config.terms, config.parts(), strict=True)
        }
        terms = self._terms.values()
        self.unit = " + ".join(f"{weight:g} {name}" for weight, name, _ in terms)
        self.version = "; ".join(f"{name} {reward.version}" for _, name, reward in terms)
        self.uses_prompts = any(reward.uses_prompts for _, _, reward in terms)

    def by_head(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        found = {}
        for head, (_, name, reward) in self._terms.items():
            scores = reward(images, prompts)
            check_shape(scores, name, len(images), "a term of the weighted sum")
            found[head] = scores.float().cpu()
        return found

    def total(self, by_head: dict[str, Tensor]) -> Tensor:
        scores = next(iter(by_head.values()))
        return sum((weight * by_head[head] for head, (weight, *_) in self._terms.items()), torch.zeros_like(scores))


def _heads(config: WeightedSumConfig) -> list[str]:
    """The terms' names; one that comes twice has its place in the sum beside it, from 0."""
    names = [term.name for term in config.terms]
    return [name if names.count(name) == 1 else f"{name}.{index}" for index, name in enumerate(names)]
