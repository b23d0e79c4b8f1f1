"""What a folder's earlier run, by its ``run.json``, means for a new one in the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rfbench.errors import InputError
from rfbench.planning.plan import Plan
from rfbench.suite.suite import AlgorithmSettings

# settings that a resumed run need not share; those of memory and speed change results within float tolerance alone
COST = ("chunk_size", "decode_chunk_size", "gradient_checkpointing", "compile", "export")
MAY_CHANGE = ("compute.trackers.", "description", "paper", *(f"compute.{name}" for name in COST))


def check_resumable(earlier: dict[str, Any], plan: Plan, processes: int, path: Path) -> None:
    """An ``InputError`` where going on with ``earlier`` would not end as an uninterrupted run would."""
    before = _flat(earlier["suite"]) | {"processes": earlier["processes"]}
    now = _flat(plan.suite.resolved(plan.label)) | {"processes": processes}
    different = _different(before, now)
    if different:
        raise InputError(f"{path} cannot be resumed with other settings: {different}. Restore them, or use --overwrite")


def check_same_experiment(earlier: dict[str, Any], plan: Plan, path: Path) -> None:
    """An ``InputError`` where ``earlier``, finished, is not the run that ``plan`` would make."""
    settings = AlgorithmSettings.model_validate(earlier["suite"]["algorithms"][plan.label])
    before = {"suite_hash": earlier["suite_hash"]} | _flat(settings.model_dump(mode="json"))
    now = {"suite_hash": plan.suite.hash} | _flat(plan.settings.model_dump(mode="json"))
    different = _different(before, now)
    if different:
        raise InputError(
            f"{path} holds a finished run with other settings: {different}. Restore them, choose another --out, or use "
            "--overwrite"
        )


def _different(before: dict[str, Any], now: dict[str, Any]) -> str:
    keys = {key for key in before.keys() | now.keys() if not key.startswith(MAY_CHANGE)}
    different = sorted(key for key in keys if before.get(key) != now.get(key))
    return "; ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in different[:5])


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict):
        return {prefix: data}
    dot = "." if prefix else ""
    return {k: v for name, value in data.items() for k, v in _flat(value, f"{prefix}{dot}{name}").items()}
