"""Records of earlier formats, read as those of today's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

FORMAT = 2
RENAMED = {  # by the file they stand in, format 1 -> 2
    "run": {"algorithm": "variant"},
    "counters": {"unet_forwards": "denoiser_forwards", "unet_backwards": "denoiser_backwards"},
    "metrics": {"unet_forwards": "denoiser_forwards", "unet_backwards": "denoiser_backwards"},
    "evals": {"prompts": "evaluation_set"},
}


def upgrade_run(record: dict[str, Any]) -> dict[str, Any]:
    """``run.json`` in today's format."""
    if record.get("format", 1) >= FORMAT:
        return record
    upgraded = _renamed(record, RENAMED["run"]) | {"format": FORMAT}
    if isinstance(record.get("counters"), dict):
        upgraded["counters"] = _renamed(record["counters"], RENAMED["counters"])
    return upgraded


def renamed_keys(name: str, keys: Iterable[str]) -> dict[str, str]:
    """Those of ``keys``, of the records ``<name>.jsonl``, that are called otherwise today, with today's names."""
    return {key: RENAMED[name][key] for key in keys if key in RENAMED[name]}


def _renamed(record: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in record.items()}
