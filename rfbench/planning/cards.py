"""The GPUs that people have: what their makers publish of them, and how long a run's arithmetic takes on one."""

from __future__ import annotations

import re
from typing import NamedTuple

PRECISIONS = {"fp32": "fp32", "tf32": "TF32", "bf16": "16 bits"}  # what is told apart: bf16 and fp16 have one rate


class Card(NamedTuple):
    """Rates are dense (without the doubling that sparsity would give), in 1e12 floating-point operations per second.

    Attributes:
        fp32: of the ordinary units; tf32, sixteen_bits: of the matrix units, which add up in fp32.
        source: where the maker says so.
    """

    name: str
    gigabytes: int
    fp32: float
    tf32: float
    sixteen_bits: float
    source: str

    def rate(self, precision: str) -> float:
        """Published floating-point operations per second in a suite's ``compute.precision``."""
        return 1e12 * {"fp32": self.fp32, "tf32": self.tf32}.get(precision, self.sixteen_bits)


CARDS = (
    Card("A100", 80, 19.5, 156.0, 312.0, "NVIDIA A100 Tensor Core GPU data sheet, June 2021: SXM, dense"),
    Card("H100", 80, 67.0, 494.7, 989.4, "NVIDIA H100 Tensor Core GPU data sheet: SXM, half of the sparse rates"),
    Card("H200", 141, 67.0, 494.7, 989.4, "NVIDIA H200 Tensor Core GPU data sheet: SXM, half of the sparse rates"),
    Card("4090", 24, 82.6, 82.6, 165.2, "NVIDIA Ada GPU Architecture 1.1, appendix A: RTX 4090, sums in fp32"),
)

SLOWER_FORMS = {"PCIe", "NVL", "Laptop", "D", "MIG"}  # words of a driver's name for a card of lower rates

# Of the published rate, assumed until a run on the card says otherwise: matrix units wait for memory more often.
ASSUMED_SHARE = {"fp32": 0.6, "tf32": 0.4, "bf16": 0.4, "fp16": 0.4}

USABLE = 0.9  # of a card's memory: the rest goes to what an account of memory leaves out


def days(flops: float, card: Card, precision: str, cards: int = 1) -> float:
    """Days that ``flops`` take on some cards at the assumed share, sharing the work without loss.

    No precision is slower than fp32, whose units PyTorch can fall back to.
    """
    rate = max(card.rate(kind) * ASSUMED_SHARE[kind] for kind in ("fp32", precision))
    return flops / rate / cards / 86_400


def share_of_rate(flops: float, seconds: float, card: Card, precision: str) -> float:
    """The measured share of the published rate."""
    return flops / seconds / card.rate(precision)


def find_card(device: str) -> Card | None:
    """The card that a driver calls ``device``, such as "NVIDIA H100 80GB HBM3"; None for another, or a slower form."""
    words = set(re.split(r"[ -]", device))
    return None if words & SLOWER_FORMS else next((card for card in CARDS if card.name in words), None)


def duration(days: float) -> str:
    """``"71 days"``, ``"7.2 days"``, ``"12 hours"`` or ``"20 min"``."""
    if days >= 1:
        return f"{days:.0f} days" if days >= 10 else f"{days:.1f} days"
    return f"{days * 24:.1f} hours" if days >= 1 / 24 else f"{days * 1440:.0f} min"
