"""What a denoiser is conditioned on: named tensors with one row per prompt, encoded once."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from rfbench.core.prompts import PromptSet
from rfbench.files import write_atomically

Condition = dict[str, Tensor]
RECENT_BYTES = 64 * 2**20  # of prompts that may not come back
KEPT_SHARE = 0.05  # of the machine's memory that the training prompts may take, if they are kept at all


def select(condition: Condition, rows: Tensor) -> Condition:
    """The rows ``(m,)`` of every tensor."""
    return {name: value[rows] for name, value in condition.items()}


def stack(conditions: Sequence[Condition]) -> Condition:
    """Conditions joined along their rows."""
    return {name: torch.cat([condition[name] for condition in conditions]) for name in conditions[0]}


class PromptEncoder:
    """Prompt -> condition on the model's device, keeping in CPU memory the prompts that will be asked for again.

    Prompts are encoded one by one: an embedding then depends on its prompt alone, bit for bit, whatever was encoded
    before a resume or on another process.

    Why not all of them: a prompt takes 77 x 768 numbers (0.24 MB) in Stable Diffusion 1.x and 0.64 MB in XL. Of
    100,000 training prompts each comes back after hundreds of epochs, and encoding it again costs 13 GFLOP beside the
    80 TFLOP of sampling one image of it. What an epoch, or an algorithm's replay, asks for again and again is recent.

    With a folder (``store_in``) every encoded prompt is a file in it too, and is read from there the next time.
    """

    def __init__(
        self,
        encode: Callable[[str], Condition],
        unconditional: Callable[[], Condition] | None = None,
        recent_bytes: int = RECENT_BYTES,
    ) -> None:
        self._encode_one, self._unconditional = encode, unconditional or partial(encode, "")
        self._to_keep: set[str] = set()
        self._kept: dict[str, Condition] = {}
        self._recent: OrderedDict[str, Condition] = OrderedDict()
        self._free = recent_bytes
        self._device = torch.device("cpu")
        self._empty: Condition | None = None
        self._folder: Path | None = None

    def store_in(self, folder: Path, device: torch.device) -> None:
        """Keeps encoded prompts in ``folder``, which holds those of this model alone; ``device`` is the model's."""
        self._folder, self._device = folder, device

    @torch.no_grad()
    def encode_ahead(self, prompts: Iterable[str]) -> None:
        """Encodes what the folder lacks of ``prompts`` and the unconditional one; one process at a time does."""
        assert self._folder is not None
        with FileLock(self._folder / ".lock", fallback_to_soft=False):
            self.empty(1)
            for prompt in prompts:
                if not (self._folder / _file_name(prompt)).exists():
                    self._stored(_file_name(prompt), partial(self._encode_one, prompt))

    def __call__(self, prompts: Sequence[str]) -> Condition:
        joined = stack([self._encode(prompt) for prompt in prompts])
        return {name: value.to(self._device) for name, value in joined.items()}

    def keep(self, prompts: Iterable[str]) -> None:
        """Each of these stays in memory once it has been asked for."""
        self._to_keep.update(prompts)

    def keep_if_few(self, prompts: PromptSet | Sequence[str], share: float = KEPT_SHARE) -> None:
        """The same, where all of them together fit into this ``share`` of the machine's memory."""
        if num_bytes(self._encode(prompts[0])) * len(prompts) <= share * memory_bytes():
            self.keep(prompts)

    def empty(self, rows: int) -> Condition:
        """The unconditional condition with ``rows`` equal rows; it stays on the device, since every step needs it."""
        if self._empty is None:
            with torch.no_grad():
                self._empty = self._stored("unconditional.safetensors", self._unconditional)
        return {name: value.expand(rows, *value.shape[1:]) for name, value in self._empty.items()}

    @torch.no_grad()
    def _encode(self, prompt: str) -> Condition:
        if prompt in self._kept:
            return self._kept[prompt]
        if prompt in self._recent:
            self._recent.move_to_end(prompt)
            return self._recent[prompt]
        encoded = self._stored(_file_name(prompt), partial(self._encode_one, prompt))
        self._device = next(iter(encoded.values())).device
        condition = {name: value.cpu() for name, value in encoded.items()}
        if prompt in self._to_keep:
            self._kept[prompt] = condition
            return condition
        self._recent[prompt] = condition
        self._free -= num_bytes(condition)
        while self._free < 0 and len(self._recent) > 1:
            self._free += num_bytes(self._recent.popitem(last=False)[1])
        return condition

    def _stored(self, name: str, encode: Callable[[], Condition]) -> Condition:
        """What ``encode`` gives; with a folder, from the file ``name`` in it, which is written where there is none."""
        if self._folder is None:
            return encode()
        path = self._folder / name
        with suppress(FileNotFoundError, SafetensorError):  # a torn file is written again
            return dict(load_file(path, device=str(self._device)))
        encoded = encode()
        write_atomically(path, save({key: value.contiguous() for key, value in encoded.items()}), os.getpid())
        return encoded


def _file_name(prompt: str) -> str:
    return f"{hashlib.sha256(prompt.encode()).hexdigest()}.safetensors"


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def num_bytes(condition: Condition) -> int:
    """What a condition's tensors take."""
    return sum(value.numel() * value.element_size() for value in condition.values())
