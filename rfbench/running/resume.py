"""What a folder's earlier run, by its ``run.json``, means for a new one in the same place."""

from __future__ import annotations

from pathlib import Path

from rfbench.errors import InputError
from rfbench.records.format import RunRecord
from rfbench.records.identity import Experiment, Planned, Purpose, differences


def check_resumable(earlier: RunRecord, planned: Planned, path: Path) -> None:
    """An ``InputError`` where going on with ``earlier`` would not end as an uninterrupted run would."""
    different = _different(earlier, planned, "resume")
    if different:
        raise InputError(f"{path} cannot be resumed with other settings: {different}. Restore them, or use --overwrite")


def check_same_experiment(earlier: RunRecord, planned: Planned, path: Path) -> None:
    """An ``InputError`` where ``earlier``, finished, is not the run that ``planned`` would make."""
    different = _different(earlier, planned, "pool")
    if different:
        raise InputError(
            f"{path} holds a finished run with other settings: {different}. Restore them, choose another --out, or use "
            "--overwrite"
        )


def check_repeatable(earlier: RunRecord, repeated: Experiment, path: Path) -> None:
    """An ``InputError`` where what would be run, or was, is another experiment than ``earlier``."""
    different = _different(earlier, repeated, "pool")
    if different:
        raise InputError(f"{path} cannot be repeated here: {different}. Restore them, or verify a run of this version")


def _different(earlier: RunRecord, planned: Experiment, purpose: Purpose, limit: int = 5) -> str:
    found = differences(earlier, planned, purpose)
    more = [f"and {len(found) - limit} more"] if len(found) > limit else []
    return "; ".join([f"{d.field} was {d.first!r} and is {d.second!r}" for d in found[:limit]] + more)
