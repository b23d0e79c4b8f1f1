"""What a measure can be at all, so that no interval says more.

A unit that begins with "share" says that a measure lies between 0 and 1; so does diversity, a root mean square
difference of pixels. KL divergences and the regret are never negative.
"""

from __future__ import annotations

import math
from typing import Any

from rfbench.report.analysis.intervals import UNBOUNDED

Bounds = tuple[float, float]

NOT_NEGATIVE = (0.0, math.inf)
SHARE = (0.0, 1.0)
DIAGNOSTICS = {
    "kl": NOT_NEGATIVE,
    "kl_per_dimension": NOT_NEGATIVE,
    "expected_kl": NOT_NEGATIVE,
    "regret": NOT_NEGATIVE,
    "diversity": SHARE,
}


def of_measure(cell: dict[str, Any]) -> Bounds:
    """The lowest and highest value of a row's measure, by its role and unit."""
    if cell["role"] == "diagnostic":
        return DIAGNOSTICS.get(cell["measure"], UNBOUNDED)
    return SHARE if (cell["unit"] or "").startswith("share") else UNBOUNDED


def of_change(bounds: Bounds, start: float) -> Bounds:
    """The bounds of a change from `start`."""
    return bounds[0] - start, bounds[1] - start


def of_difference(bounds: Bounds) -> Bounds:
    """The bounds of the difference of two values."""
    return bounds[0] - bounds[1], bounds[1] - bounds[0]
