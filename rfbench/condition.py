"""What a denoiser is conditioned on: named tensors with one row per prompt, encoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rfbench.models.base import Model

Condition = dict[str, Tensor]


def select(condition: Condition, rows: Tensor) -> Condition:
    """The rows ``(m,)`` of every tensor."""
    return {name: value[rows] for name, value in condition.items()}


def stack(conditions: Sequence[Condition]) -> Condition:
    """Conditions joined along their rows."""
    return {name: torch.cat([condition[name] for condition in conditions]) for name in conditions[0]}


class PromptEncoder:
    """Prompt -> condition, keeping the most recent ``capacity`` prompts.

    Prompts are encoded one by one: an embedding then depends on its prompt alone, bit for bit, whatever was encoded
    before a resume or on another process.
    """

    def __init__(self, model: Model, capacity: int = 4096) -> None:
        self._model = model
        self._capacity = capacity
        self._cache: OrderedDict[str, Condition] = OrderedDict()

    def __call__(self, prompts: Sequence[str]) -> Condition:
        return stack([self._encode(prompt) for prompt in prompts])

    @torch.no_grad()
    def _encode(self, prompt: str) -> Condition:
        if prompt in self._cache:
            self._cache.move_to_end(prompt)
        else:
            self._cache[prompt] = self._model.encode(prompt)
            if len(self._cache) > self._capacity:
                self._cache.popitem(last=False)
        return self._cache[prompt]
