"""What a run leaves on the disk, file by file, without what no two runs share: seconds, dates, memory."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tests.faults.trial import Broken

UNLIKE = (
    "git_commit", "started_at", "updated_at", "peak_memory_bytes", "phase_seconds",
    "checksum", "sha256", "record_sizes", "record_sums",
)  # fmt: skip
NOT_COMPARED = (".lock",)  # of no content


def contents(folder: Path) -> dict[str, str]:
    """A line for each file of a folder: its name, and what is in it."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir() and path.name not in NOT_COMPARED)
    return {str(path.relative_to(folder)): content(path) for path in files}


def require_same(found: Path, expected: Path, but: str | None = None) -> None:
    """``Broken`` where two folders differ: in a file's content, or because one has a file that the other lacks.

    ``but``: the beginning of names that may differ.
    """
    ours, theirs = (
        {name: content for name, content in contents(folder).items() if not (but and name.startswith(but))}
        for folder in (found, expected)
    )
    if missing := sorted(theirs.keys() - ours.keys()):
        raise Broken(f"{missing[0]} is missing ({len(missing)} files)")
    if more := sorted(ours.keys() - theirs.keys()):
        raise Broken(f"{more[0]} was left over ({len(more)} files)")
    different = [name for name in ours if ours[name] != theirs[name]]
    if different:
        raise Broken(f"{', '.join(different)}: not what an undisturbed run leaves")


def content(path: Path) -> str:
    """What is in a file: its records without seconds and dates, or the checksum of its bytes."""
    with suppress(ValueError):  # damaged: its bytes are compared
        return _meaning(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _meaning(path: Path) -> str:
    if path.suffix == ".json":
        return json.dumps(_without(json.loads(path.read_bytes())), sort_keys=True)
    if path.suffix == ".jsonl":
        return "\n".join(json.dumps(_without(json.loads(line))) for line in path.read_bytes().splitlines())
    if path.name == "state.pt":
        return _digest(torch.load(path, weights_only=True))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without(record: Any) -> Any:
    """A record without seconds and dates, and without the sizes and checksums of files that hold them."""
    if not isinstance(record, dict):
        return record
    kept = {key: value for key, value in record.items() if key not in UNLIKE and not key.endswith("seconds")}
    return {key: _without(value) for key, value in kept.items()}


def _digest(state: Any) -> str:
    if isinstance(state, torch.Tensor):
        return f"{tuple(state.shape)} {hashlib.sha256(state.contiguous().view(-1).numpy().tobytes()).hexdigest()}"
    if isinstance(state, dict):
        return str({key: _digest(value) for key, value in state.items() if key != "seconds"})
    if isinstance(state, list | tuple):
        return str([_digest(value) for value in state])
    return repr(state)
