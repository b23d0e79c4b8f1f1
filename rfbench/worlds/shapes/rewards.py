"""Rewards of the embedded world: the learned proxy that training sees, and the rule-based gold that it does not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rfbench.core.reward import Reward
from rfbench.errors import InputError
from rfbench.suite.settings import Settings
from rfbench.worlds.shapes import gold, grammar, weights
from rfbench.worlds.shapes.proxy import ShapesReward


class ShapesPreference(Reward):
    """A small CLIP trained on the gold scorer's preferences between samples, scored as PickScore is."""

    unit = "logits (logit scale x cosine)"
    version = "1"
    image_kind = "pixels"

    def __init__(self, config: Settings, device: torch.device) -> None:
        weights.verify(weights.REWARD)
        self._model = ShapesReward.load(weights.REWARD).to(device)
        self._device = device

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._model(images.to(self._device).float() / 255, prompts)


class ShapesGold(Reward):
    """Share of the prompt's attributes that the pixels show, 0 to 1."""

    unit = "share of attributes"
    version = "1"
    image_kind = "pixels"

    def __init__(self, config: Settings, device: torch.device) -> None:
        """Scores on the CPU."""

    @classmethod
    def check_prompts(cls, config: Settings, prompts: Iterable[str]) -> None:
        """Only a sentence of the grammar says which attributes to look for."""
        for prompt in prompts:
            try:
                grammar.parse(prompt)
            except ValueError as error:
                raise InputError(f"{error}; use prompts of the set 'shapes', or leave this reward out") from None

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return gold.attribute_accuracy(images, prompts)


class ShapesGoldAll(ShapesGold):
    """1 where the pixels show all of the prompt's attributes, else 0."""

    unit = "share of images"

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return gold.all_correct(images, prompts)
