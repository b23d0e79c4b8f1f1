"""The denoiser as it computes in a lower precision, with its last layer in fp32 if asked, over one set of weights.

On a GPU that is its autocast, as of ``compute.precision``; on a CPU the GPU's is emulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from rfbench.core.policy import COMPUTE_DTYPES, Policy
from rfbench.errors import InputError
from rfbench_benchmarks.precision.emulated import Emulated

LAST_LAYER = "conv_out"


@contextmanager
def rounded(policy: Policy, precision: str, *, last_layer_in_fp32: bool = False) -> Iterator[None]:
    """A policy made in fp32, and its reference, compute as a GPU's of ``compute.precision=precision`` inside of it."""
    dtype = COMPUTE_DTYPES[precision]
    changed: list[nn.Module] = []
    for network in filter(None, (policy.denoiser, policy.frozen_copy)):
        if last_layer_in_fp32:
            last = last_layer(network)
            last.forward = _in_fp32(last.forward)  # type: ignore[method-assign]
            changed.append(last)
        if dtype != torch.float32:
            network.forward = _in_dtype(dtype, network.forward)  # type: ignore[method-assign]
            changed.append(network)
    try:
        yield
    finally:
        for module in changed:
            del module.forward  # the class's is there again


def last_layer(network: nn.Module) -> nn.Module:
    """The layer whose result is the network's; an ``InputError`` where there is none of the usual name."""
    layer = getattr(network, LAST_LAYER, None)
    if not isinstance(layer, nn.Module):
        raise InputError(
            f"{type(network).__name__} has no layer {LAST_LAYER!r}: its last one cannot be computed in fp32; choose a "
            "suite whose denoiser is a UNet"
        )
    return layer


def _in_dtype(dtype: torch.dtype, forward: Callable[..., Any]) -> Callable[..., Any]:
    def inside(latents: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        device = latents.device.type
        with Emulated(dtype) if device == "cpu" else torch.autocast(device, dtype=dtype):
            return forward(latents, *arguments, **options)

    return inside


def _in_fp32(forward: Callable[..., Any]) -> Callable[..., Any]:
    def outside(hidden: torch.Tensor) -> Any:
        with torch._C.DisableTorchFunction(), torch.autocast(hidden.device.type, enabled=False):
            return forward(hidden.float())

    return outside
