"""Common random numbers: every draw is keyed by what it is for, never by the order of calls.

A key is a tuple such as ``(seed, "rollout", epoch, image)``. Equal keys give equal numbers in every process, for every
chunk size and after every resume; evaluation has keys of its own and so cannot disturb training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

Key = tuple[int | str, ...]


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator whose stream depends on ``key`` alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def normal(keys: Sequence[Key], shape: Sequence[int]) -> Tensor:
    """Standard normal numbers ``(len(keys), *shape)``, fp32 on the CPU; row ``i`` depends on ``keys[i]`` alone."""
    return torch.stack([torch.randn(*shape, generator=generator(*key)) for key in keys])
