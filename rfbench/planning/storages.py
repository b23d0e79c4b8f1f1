"""The most memory that a piece of code takes, booked storage by storage; with fake tensors it takes none itself."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that ``call`` has at any moment in storages that it makes, forward and backward."""
    with _Bookkeeper() as books:
        call()
    return books.peak


class _Bookkeeper(TorchDispatchMode):
    """Adds a storage when an operation returns it, and takes it off when it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._open: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        arguments = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in arguments:
                self._book(tensor.untyped_storage())
        return result

    def _book(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._open:
            return
        self._open[key] = storage.nbytes()
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self._now -= self._open.pop(key, 0)
