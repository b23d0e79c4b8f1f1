"""Atomic save and exact resume.

A checkpoint is a folder ``epoch-<n>`` with the trained weights, the rest of the state, and a manifest that says whose
it is, with checksums of everything. It is written under another name and renamed when it is complete, so a torn one is
never taken; the one before it is removed only then. Nothing in it can run code when loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rfbench.errors import DamagedFileError, InputError
from rfbench.files import sha256, verify, whole_folder
from rfbench.hub.weights import MACHINE_FAULTS
from rfbench.records.format import FORMAT, RunRecord
from rfbench.records.identity import Planned, suite_hash, variant_hash
from rfbench.running import failures
from rfbench.running.folder import remove_checkpoints

CONTENT = ("weights.safetensors", "state.pt")


@dataclass
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    Attributes:
        epoch: completed epochs.
        weights: the trained parameters by name.
        state: optimiser, algorithm, counters and seconds; tensors and plain values.
        record_sizes: bytes of each record file at this moment.
        record_sums: the checksum of each.
    """

    epoch: int
    weights: dict[str, Tensor]
    state: dict[str, Any]
    record_sizes: dict[str, int]
    record_sums: dict[str, str]


@dataclass(frozen=True)
class Owner:
    """Whose a checkpoint is: it goes on as the run that wrote it, and as no other."""

    suite_hash: str
    variant: str
    variant_hash: str
    seed: int

    @classmethod
    def planned(cls, plan: Planned, seed: int) -> Owner:
        hashes = suite_hash(plan.suite, plan.inputs), variant_hash(plan.suite, plan.variant)
        return cls(hashes[0], plan.variant, hashes[1], seed)

    @classmethod
    def recorded(cls, run: RunRecord) -> Owner:
        return cls(run.suite_hash, run.variant, run.variant_hash, run.seed)


def save(folder: Path, checkpoint: Checkpoint, owner: Owner) -> Path:
    """Writes ``folder/epoch-<n>`` and then removes older checkpoints; a full disk leaves them as they are."""
    final = folder / f"epoch-{checkpoint.epoch:06d}"
    with whole_folder(final) as temporary, failures.writing(temporary):
        save_file(
            {name: value.contiguous() for name, value in checkpoint.weights.items()}, temporary / "weights.safetensors"
        )
        torch.save(checkpoint.state, temporary / "state.pt")
        manifest = {
            "format": FORMAT,
            **asdict(owner),
            "epoch": checkpoint.epoch,
            "record_sizes": checkpoint.record_sizes,
            "record_sums": checkpoint.record_sums,
            "sha256": {name: sha256(temporary / name) for name in CONTENT},
        }
        (temporary / "manifest.json").write_text(json.dumps(manifest | {"checksum": _checksum(manifest)}, indent=2))
    remove_checkpoints(folder, but=final)
    return final


def load_latest(folder: Path, device: torch.device, owner: Owner) -> Checkpoint | None:
    """The newest complete checkpoint of this owner, its checksums verified; None where there is none."""
    newest = _latest(folder)
    if newest is None:
        return None
    manifest = _read_manifest(newest / "manifest.json")
    for field, ours in asdict(owner).items():
        if manifest[field] != ours:
            raise InputError(
                f"{newest} is a checkpoint of another run: its {field} is {manifest[field]!r}, and this run's is "
                f"{ours!r}; put the run's own checkpoints back, or start over with --overwrite"
            )
    for name in CONTENT:
        verify(newest / name, manifest["sha256"][name])
    return Checkpoint(
        epoch=manifest["epoch"],
        weights=_loaded(newest / "weights.safetensors", load_file),
        state=_loaded(newest / "state.pt", lambda path: torch.load(path, map_location=device, weights_only=True)),
        record_sizes=manifest["record_sizes"],
        record_sums=manifest.get("record_sums", {}),  # not in those of earlier versions
    )


def keep_latest(folder: Path) -> None:
    """Removes all checkpoints but the newest complete one."""
    remove_checkpoints(folder, but=_latest(folder))


def _latest(folder: Path) -> Path | None:
    return max((path for path in folder.glob("epoch-*") if path.is_dir()), default=None)


def _loaded(path: Path, load: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What is in a file; its checksum says that this was written, but not by whom."""
    try:
        return load(path)
    except MACHINE_FAULTS:
        raise
    except Exception as error:  # of many kinds
        raise DamagedFileError(
            f"{path} does not hold the tensors and plain values of a checkpoint ({type(error).__name__}), and nothing "
            "else is loaded; start over with --overwrite"
        ) from None


def _read_manifest(path: Path) -> dict[str, Any]:
    """The manifest, if it is of today's format and says what was written."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        checksum = manifest.pop("checksum", None)
    except (OSError, ValueError, AttributeError) as error:
        raise DamagedFileError(f"{path} is unreadable ({error}); start over with --overwrite") from None
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{path} is of format {manifest.get('format', 1)!r}, and this rfbench goes on from format {FORMAT}; finish "
            "the run with the rfbench that began it, or start over with --overwrite"
        )
    if checksum != _checksum(manifest):
        raise DamagedFileError(
            f"{path} is damaged: its checksum is {checksum}, expected {_checksum(manifest)}; restore the file, or "
            "start over with --overwrite"
        )
    return manifest


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
