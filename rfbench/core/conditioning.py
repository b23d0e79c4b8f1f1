"""What a denoiser is conditioned on: named tensors with one row per prompt, encoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

Condition = dict[str, Tensor]
CACHE_BYTES = 4 * 2**30


def select(condition: Condition, rows: Tensor) -> Condition:
    """The rows ``(m,)`` of every tensor."""
    return {name: value[rows] for name, value in condition.items()}


def stack(conditions: Sequence[Condition]) -> Condition:
    """Conditions joined along their rows."""
    return {name: torch.cat([condition[name] for condition in conditions]) for name in conditions[0]}


class PromptEncoder:
    """Prompt -> condition on the model's device, keeping the most recent prompts in ``capacity_bytes`` of CPU memory.

    Prompts are encoded one by one: an embedding then depends on its prompt alone, bit for bit, whatever was encoded
    before a resume or on another process.

    Why 4 GiB: a prompt takes 77 x 768 numbers (0.24 MB) in Stable Diffusion 1.x and 0.64 MB in XL, so 100,000 prompts
    would take 24 or 64 GB. All prompts of a small suite and every evaluation fit (18,000 or 6,700 prompts); of a large
    one a prompt comes back after hundreds of epochs, and encoding it again costs 13 GFLOP beside the 80 TFLOP of
    sampling one image of it.
    """

    def __init__(
        self,
        encode: Callable[[str], Condition],
        unconditional: Callable[[], Condition] | None = None,
        capacity_bytes: int = CACHE_BYTES,
    ) -> None:
        self._encode_one, self._unconditional = encode, unconditional or partial(encode, "")
        self._free = capacity_bytes
        self._cache: OrderedDict[str, Condition] = OrderedDict()
        self._device = torch.device("cpu")
        self._empty: Condition | None = None

    def __call__(self, prompts: Sequence[str]) -> Condition:
        joined = stack([self._encode(prompt) for prompt in prompts])
        return {name: value.to(self._device) for name, value in joined.items()}

    def empty(self, rows: int) -> Condition:
        """The unconditional condition with ``rows`` equal rows; it stays on the device, since every step needs it."""
        if self._empty is None:
            with torch.no_grad():
                self._empty = self._unconditional()
        return {name: value.expand(rows, *value.shape[1:]) for name, value in self._empty.items()}

    @torch.no_grad()
    def _encode(self, prompt: str) -> Condition:
        if prompt in self._cache:
            self._cache.move_to_end(prompt)
            return self._cache[prompt]
        encoded = self._encode_one(prompt)
        self._device = next(iter(encoded.values())).device
        self._cache[prompt] = {name: value.cpu() for name, value in encoded.items()}
        self._free -= num_bytes(encoded)
        while self._free < 0 and len(self._cache) > 1:
            self._free += num_bytes(self._cache.popitem(last=False)[1])
        return self._cache[prompt]


def num_bytes(condition: Condition) -> int:
    """What a condition's tensors take."""
    return sum(value.numel() * value.element_size() for value in condition.values())
