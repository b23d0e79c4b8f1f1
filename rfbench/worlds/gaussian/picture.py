"""Points as small pictures, for the eye."""

from __future__ import annotations

import torch
from torch import Tensor

SIZE = 32
EXTENT = 4.0  # a picture shows [-EXTENT, EXTENT]^2
DOT = 0.25  # standard deviation of a dot


def draw(points: Tensor) -> Tensor:
    """Pictures ``(m, 3, 32, 32)`` uint8 of points ``(m, 2)``: a dark dot on white, y upwards; blank outside."""
    axis = torch.linspace(-EXTENT, EXTENT, SIZE, device=points.device)
    across = (-(axis - points[:, :1]).square() / (2 * DOT**2)).exp()  # (m, 32)
    upwards = (-(axis.flip(0) - points[:, 1:]).square() / (2 * DOT**2)).exp()
    grey = 255 * (1 - upwards[:, :, None] * across[:, None, :])
    return grey.round().to(torch.uint8)[:, None].expand(-1, 3, -1, -1)
