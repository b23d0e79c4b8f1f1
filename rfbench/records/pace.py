"""How long a run still takes: one estimate, and one way to write it, for all who show a run."""

from __future__ import annotations

from collections.abc import Sequence

from rfbench.records.format import PHASES

PACE_EPOCHS = 5
EPOCH_SECONDS = tuple(f"{phase}_seconds" for phase in PHASES if phase != "load")  # of each epoch; loading is once


def seconds_left(epoch_seconds: Sequence[float], epochs_left: int) -> float | None:
    """At the mean pace of the last five epochs, their evaluations included; None before the first epoch's end."""
    latest = epoch_seconds[-PACE_EPOCHS:]
    return sum(latest) / len(latest) * max(0, epochs_left) if latest else None


def duration(seconds: float | None) -> str:
    """``"1h02m"``, ``"2m03s"`` or ``"4s"``; days from two on."""
    if seconds is None:
        return "?"
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.0f} days"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
