"""Numbers that are not finite stop a run where they arise: which number, of which image and prompt, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from rfbench.errors import NonFiniteError


class NonFiniteImagesError(NonFiniteError):
    """Decoded images with NaN or infinity: ``rows`` are their places in the batch."""

    def __init__(self, message: str, rows: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.rows = list(rows)


@dataclass(frozen=True)
class Batch:
    """Images that are worked on together, for errors.

    Attributes:
        where: the moment, such as "epoch 3".
        prompts: each image's.
        first: the first image's number there.
    """

    where: str
    prompts: Sequence[str]
    first: int = 0

    def require_finite(self, values: Tensor, what: str) -> None:
        """A ``NonFiniteError`` unless every number of ``values`` ``(m, ...)`` is finite."""
        if not all_finite(values):
            self.fail(broken_rows(values), what)

    def fail(self, rows: Sequence[int], what: str) -> None:
        worst = rows[0]
        raise NonFiniteError(
            f"{what} not finite at {self.where} for image {self.first + worst}, prompt {self.prompts[worst]!r} "
            f"({len(rows)} of {len(self.prompts)} images of its batch)"
        )


def all_finite(values: Tensor) -> bool:
    """Whether every number is finite; yes for tensors without numbers, on which memory is accounted."""
    return isinstance(values, FakeTensor) or bool(values.isfinite().all())


def broken_rows(values: Tensor) -> list[int]:
    """The rows of ``values`` ``(m, ...)`` that hold NaN or infinity."""
    broken = ~values.isfinite().flatten(1).all(1) if values.dim() > 1 else ~values.isfinite()
    return [int(row) for row in torch.nonzero(broken).flatten()]
