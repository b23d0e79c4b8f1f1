"""What a GPU's autocast computes in bf16 or fp16, on a device that has no units for it.

Convolutions, linear layers, matrix products and attention take arguments rounded to the dtype, add up in fp32 and round
what they give; norms and softmax compute in fp32; everything else is computed in the dtype that it is given, as
autocast leaves it. That is what tensor cores do, but for the order of their sums, and but for attention, whose inner
probabilities a fused GPU kernel rounds too. Gradients pass the same roundings. It takes a CPU about fp32's time, where
its own kernels take ten times as long in fp16 and, without bf16 units, twenty in bf16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

IN_DTYPE = {
    torch.conv2d,
    functional.linear,
    functional.scaled_dot_product_attention,
    torch.matmul,
    Tensor.matmul,
    Tensor.__matmul__,
    torch.bmm,
    torch.baddbmm,
}
IN_FP32 = {
    functional.group_norm,
    torch.group_norm,
    functional.layer_norm,
    torch.layer_norm,
    functional.softmax,
    torch.softmax,
    Tensor.softmax,
}


class Emulated(TorchFunctionMode):
    """Inside of it, torch functions compute as under a GPU's autocast to ``dtype``."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function in IN_DTYPE:
            args, kwargs = self._each(self._rounded, args, kwargs)
            return function(*args, **kwargs).to(self._dtype)
        if function in IN_FP32:
            args, kwargs = self._each(_widened, args, kwargs)
        return function(*args, **kwargs)

    @staticmethod
    def _each(
        change: Callable[[Any], Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(map(change, args)), {name: change(value) for name, value in kwargs.items()}

    def _rounded(self, value: Any) -> Any:
        return value.to(self._dtype).float() if _is_real(value) else value


def _widened(value: Any) -> Any:
    return value.float() if _is_real(value) else value


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
