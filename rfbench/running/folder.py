"""A run's folder: ``run.json``, the JSONL records, and the lock that keeps a second writer out."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

from rfbench.errors import InputError
from rfbench.records.migration import upgrade_run

RECORDS = ("metrics", "evals")
JUDGEMENTS = ("quick", "final")  # what `rfbench evaluate` writes, by tier


def run_path(root: Path, suite: str, label: str, seed: int) -> Path:
    """The folder of a run under the root of the results."""
    return root / suite / label / f"seed-{seed}"


class RunFolder:
    """``<root>/<suite>/<algorithm>/seed-<n>/``, with one writer at a time; other processes of a run only read."""

    def __init__(self, path: Path, *, writer: bool = True) -> None:
        self.path = path
        if not writer:
            return
        path.mkdir(parents=True, exist_ok=True)
        self._lock = open(path / ".lock", "w")  # noqa: SIM115  # held until the process ends, however it ends
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{path} is being written by another process; wait, or choose another --out") from None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        return self.path / "weights"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def trackers(self) -> Path:
        return self.path / "trackers"

    def clear(self) -> None:
        """Removes what an earlier run left."""
        for name in (*RECORDS, *JUDGEMENTS):
            (self.path / f"{name}.jsonl").unlink(missing_ok=True)
        (self.path / "run.json").unlink(missing_ok=True)
        for folder in (self.checkpoints, self.weights, self.samples):
            shutil.rmtree(folder, ignore_errors=True)

    def read_run(self) -> dict[str, Any] | None:
        """``run.json``, or None where there is none."""
        path = self.path / "run.json"
        return upgrade_run(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def require_run(self) -> dict[str, Any]:
        """``run.json``, or an ``InputError`` where there is none."""
        run = self.read_run()
        if run is None:
            raise InputError(
                f"{self.path} is no run: it holds no run.json; give a folder such as results/SUITE/ALGORITHM/seed-0"
            )
        return run

    def write_run(self, data: dict[str, Any]) -> None:
        """Replaces ``run.json`` atomically."""
        write_atomically(self.path / "run.json", json.dumps(data, indent=2, allow_nan=False).encode() + b"\n")

    def append(self, name: str, *records: dict[str, Any]) -> None:
        """Adds lines to ``<name>.jsonl``, on disk when this returns."""
        with open(self.path / f"{name}.jsonl", "a", encoding="utf-8") as file:
            file.writelines(json.dumps(record, allow_nan=False) + "\n" for record in records)
            file.flush()
            os.fsync(file.fileno())

    def read(self, name: str) -> list[dict[str, Any]]:
        """The lines of ``<name>.jsonl``; none where there is no file."""
        path = self.path / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def sizes(self) -> dict[str, int]:
        """Bytes in each record file: what a checkpoint remembers."""
        paths = {name: self.path / f"{name}.jsonl" for name in RECORDS}
        return {name: path.stat().st_size if path.exists() else 0 for name, path in paths.items()}

    def truncate(self, sizes: dict[str, int]) -> None:
        """Cuts the record files back to what they were at a checkpoint."""
        for name, size in sizes.items():
            path = self.path / f"{name}.jsonl"
            actual = path.stat().st_size if path.exists() else 0
            if actual < size:
                raise InputError(
                    f"{path} has {actual} bytes, but the checkpoint was written when it had {size}: records were lost; "
                    "start over with --overwrite"
                )
            if actual:
                os.truncate(path, size)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that a crash leaves either old or new."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
