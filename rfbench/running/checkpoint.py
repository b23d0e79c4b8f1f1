"""Atomic save and exact resume.

A checkpoint is a folder ``epoch-<n>`` with the trained weights, the rest of the state, and a manifest of checksums. It
is written under another name and renamed when it is complete, so a torn one is never taken; the one before it is
removed only then. Nothing in it can run code when loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rfbench.errors import DamagedFileError
from rfbench.running import failures


@dataclass
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    Attributes:
        epoch: completed epochs.
        weights: the trained parameters by name.
        state: optimiser, algorithm, counters and seconds; tensors and plain values.
        record_sizes: bytes of each record file at this moment.
    """

    epoch: int
    weights: dict[str, Tensor]
    state: dict[str, Any]
    record_sizes: dict[str, int]


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes ``folder/epoch-<n>`` and then removes older checkpoints; a full disk leaves them as they are."""
    final = folder / f"epoch-{checkpoint.epoch:06d}"
    temporary = folder / f".{final.name}.tmp"
    for leftover in (temporary, final):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    with failures.writing(temporary):
        save_file(
            {name: value.contiguous() for name, value in checkpoint.weights.items()}, temporary / "weights.safetensors"
        )
        torch.save(checkpoint.state, temporary / "state.pt")
        checksums = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
        manifest = {"epoch": checkpoint.epoch, "record_sizes": checkpoint.record_sizes, "sha256": checksums}
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=2))
        for path in temporary.iterdir():
            _sync(path)
    os.rename(temporary, final)
    _sync(folder)
    for other in folder.iterdir():
        if other != final:
            shutil.rmtree(other)
    return final


def load_latest(folder: Path, device: torch.device) -> Checkpoint | None:
    """The newest complete checkpoint, its checksums verified; None where there is none."""
    complete = sorted(folder.glob("epoch-*")) if folder.is_dir() else []
    if not complete:
        return None
    newest = complete[-1]
    try:
        manifest = json.loads((newest / "manifest.json").read_text())
        checksums = manifest["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise DamagedFileError(f"{newest}/manifest.json is unreadable ({error}); start over with --overwrite") from None
    for name, expected in checksums.items():
        verify(newest / name, expected)
    return Checkpoint(
        epoch=manifest["epoch"],
        weights=load_file(newest / "weights.safetensors"),
        state=torch.load(newest / "state.pt", map_location=device, weights_only=True),
        record_sizes=manifest["record_sizes"],
    )


def verify(path: Path, expected: str) -> None:
    """A ``DamagedFileError`` with both checksums when ``path`` is not what was written."""
    actual = sha256(path) if path.exists() else "no file"
    if actual != expected:
        raise DamagedFileError(
            f"{path} is damaged: sha256 is {actual}, expected {expected}; "
            "restore the file, or start over with --overwrite"
        )


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
