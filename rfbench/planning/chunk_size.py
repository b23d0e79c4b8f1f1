"""Chunk sizes that the settings leave open: told from shapes alone, so that they are the same at every start."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from typing import Literal, TypeVar

import torch

from rfbench.planning.arithmetic import forward_flops
from rfbench.planning.cards import USABLE
from rfbench.planning.memory import device_peak, images_decoded_at_once, memory_account
from rfbench.planning.plan import Outline

AnyOutline = TypeVar("AnyOutline", bound=Outline)
FALLBACK = 64  # where the model tells no architecture
BUSY_CPU = 1e10  # operations of a network call from which on more rows make no row faster, on one core
BUSY_GPU = 1e14  # the same: a tenth of a second of an H100 at its published rate


def settled(outline: AnyOutline, device: torch.device) -> AnyOutline:
    """The run with its chunk sizes as numbers, for the device that it will use; a CPU decodes whole chunks."""
    gpu_bytes = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    compute = outline.suite.compute
    if compute.chunk_size == "auto":
        outline = with_chunk_sizes(outline, choose(outline, gpu_bytes), compute.decode_chunk_size)
    if gpu_bytes is None:
        return outline
    return with_chunk_sizes(outline, outline.suite.compute.chunk_size, images_decoded_at_once(outline))


def settled_here(outline: AnyOutline) -> AnyOutline:
    """The same, for the device that the run would use on this machine."""
    on_gpu = outline.suite.compute.device != "cpu" and torch.cuda.is_available()
    return settled(outline, torch.device("cuda" if on_gpu else "cpu"))


def with_chunk_sizes(outline: AnyOutline, pairs: int | Literal["auto"], images: int | None) -> AnyOutline:
    """The run with so many pairs per network call and images decoded at once."""
    compute = outline.suite.compute.model_copy(update={"chunk_size": pairs, "decode_chunk_size": images})
    return replace(outline, suite=outline.suite.model_copy(update={"compute": compute}))


def choose(outline: Outline, gpu_bytes: int | None) -> int:
    """A power of two, or 1: as many pairs as keep the device busy, an epoch has, and a GPU's memory takes.

    ``gpu_bytes`` is a GPU's memory, and None stands for a CPU.
    """
    flops = forward_flops(outline.model)
    if flops is None:
        return FALLBACK
    busy = BUSY_CPU if gpu_bytes is None else BUSY_GPU
    wanted = min(busy / (flops * outline.calls_per_prediction), outline.suite.budget.reward_queries_per_epoch)
    sizes = [1]
    while sizes[-1] < wanted:
        sizes.append(2 * sizes[-1])
    if gpu_bytes is None:
        return sizes[-1]
    decoded = outline.suite.compute.decode_chunk_size
    fitting = bisect_right(sizes, USABLE * gpu_bytes, key=lambda size: _peak(with_chunk_sizes(outline, size, decoded)))
    return sizes[max(fitting, 1) - 1]


def _peak(outline: Outline) -> int:
    return device_peak(memory_account(outline))
