"""The chunk size of ``compute.chunk_size = "auto"``: told from shapes alone, so that it is the same at every start."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from typing import TypeVar

import torch

from rfbench.planning.arithmetic import forward_flops
from rfbench.planning.cards import USABLE
from rfbench.planning.memory import device_peak, memory_account
from rfbench.planning.plan import Outline

AnyOutline = TypeVar("AnyOutline", bound=Outline)
FALLBACK = 64  # where the model tells no architecture
BUSY_CPU = 1e10  # operations of a network call from which on more rows make no row faster, on one core
BUSY_GPU = 1e14  # the same: a tenth of a second of an H100 at its published rate


def settled(outline: AnyOutline, device: torch.device) -> AnyOutline:
    """The run with its chunk size as a number, for the device that it will use."""
    if outline.suite.compute.chunk_size != "auto":
        return outline
    there = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    return with_chunk_size(outline, choose(outline, there))


def settled_here(outline: AnyOutline) -> AnyOutline:
    """The same, for the device that the run would use on this machine."""
    on_gpu = outline.suite.compute.device != "cpu" and torch.cuda.is_available()
    return settled(outline, torch.device("cuda" if on_gpu else "cpu"))


def with_chunk_size(outline: AnyOutline, size: int) -> AnyOutline:
    """The run with ``size`` pairs per network call."""
    compute = outline.suite.compute.model_copy(update={"chunk_size": size})
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
    fitting = bisect_right(sizes, USABLE * gpu_bytes, key=lambda size: _peak(with_chunk_size(outline, size)))
    return sizes[max(fitting, 1) - 1]


def _peak(outline: Outline) -> int:
    return device_peak(memory_account(outline))
