"""A run's folder: its records, read and written in one place, and the lock that keeps a second writer out."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from rfbench.errors import InputError
from rfbench.files import packed, read_packed, remove, set_aside, sha256, verify, write_atomically
from rfbench.records.format import LINES, EpochRecord, EvaluationRecord, Record, RunRecord
from rfbench.records.migration import parse_run, upgrade_line
from rfbench.records.sink import Sink
from rfbench.suite.settings import describe

RECORDS = ("metrics", "evals")
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
JUDGEMENTS = ("quick", "final")  # what `rfbench evaluate` writes, by tier
OURS = (  # the files of a run, and what a crash leaves of them
    "run.json.*",
    *(f"{name}.json*" for name in (*RECORDS, *JUDGEMENTS)),
    "samples/epoch-*.png*",
    "samples/epoch-*.json*",
    "samples/index.json*",
)


def run_path(root: Path, suite: str, variant: str, seed: int) -> Path:
    """The folder of a run under the root of the results."""
    return root / suite / variant / f"seed-{seed}"


class RunFolder(Sink):
    """``<root>/<suite>/<variant>/seed-<n>/``, with one writer at a time; other processes of a run only read."""

    def __init__(self, path: Path, *, writer: bool = True, patience: float = 0.0) -> None:
        """``patience``: seconds to wait for another writer to end."""
        self.path = path
        if not writer:
            return
        path.mkdir(parents=True, exist_ok=True)
        self._check_kinds()
        # held until the process ends, however it ends; a lock that a killed process leaves behind would not do
        self._lock = FileLock(path / ".lock", timeout=patience, thread_local=False, fallback_to_soft=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(f"{path} is being written by another process; wait, or choose another --out") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise InputError(
                f"{path} is on a file system that gives no file locks ({error.strerror}), so nothing would keep a "
                "second process out; mount it with locks (Lustre: -o flock), or choose another --out"
            ) from None

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

    def on_epoch(self, record: EpochRecord) -> None:
        self.append("metrics", record)

    def on_evaluation(self, records: Sequence[EvaluationRecord]) -> None:
        self.append("evals", *records)

    def clear(self) -> None:
        """Removes what an earlier run left, and nothing else that is there; a link to another disk stays one.

        First goes the record: what a crash leaves of the rest is then no run.
        """
        remove(self.path / "run.json")
        remove_checkpoints(self.checkpoints)
        for pattern in OURS:
            for path in self.path.glob(pattern):
                remove(path)
        for path in (self.weights, set_aside(self.weights)):
            remove(path)

    def _check_kinds(self) -> None:
        """An ``InputError`` where something of another kind stands in the place of the run's files or folders."""
        files = ["run.json", *(f"{name}.jsonl" for name in (*RECORDS, *JUDGEMENTS))]
        wrong = [name for name in files if (self.path / name).is_dir()]
        wrong += [path.name for path in (self.checkpoints, self.weights, self.samples) if path.is_file()]
        if wrong:
            raise InputError(
                f"{self.path / wrong[0]} is {'a folder' if wrong[0] in files else 'a file'}, which a run's "
                f"{wrong[0]} is not; move it away"
            )
        gzipped = [packed(self.path / f"{name}.jsonl") for name in (*RECORDS, *JUDGEMENTS)]
        for file in gzipped:
            if file.exists():
                raise InputError(f"{file} is gzipped, to be read alone; gunzip it before anything is written there")

    def read_run(self) -> RunRecord | None:
        """``run.json``, or None where there is none."""
        path = self.path / "run.json"
        return parse_run(path.read_bytes(), str(path)) if path.exists() else None

    def require_run(self) -> RunRecord:
        """``run.json``, or an ``InputError`` where there is none."""
        run = self.read_run()
        if run is None:
            raise InputError(
                f"{self.path} is no run: it holds no run.json; give a folder such as results/SUITE/ALGORITHM/seed-0"
            )
        return run

    def write_run(self, record: RunRecord) -> None:
        """Replaces ``run.json`` atomically."""
        write_atomically(self.path / "run.json", record.to_json(indent=2).encode() + b"\n")

    def fail(self, error: str, rank: int) -> None:
        """Marks the run as failed, by the process of that rank. The first failure stands: others follow from it."""
        run = self.read_run()
        if run is None or run.status == "failed":
            return
        failed = run.model_copy(update={"status": "failed", "error": error})
        write_atomically(self.path / "run.json", failed.to_json(indent=2).encode() + b"\n", writer=rank)

    def append(self, name: str, *records: Record) -> None:
        """Adds lines to ``<name>.jsonl``, on disk when this returns."""
        with open(self.path / f"{name}.jsonl", "a", encoding="utf-8") as file:
            file.writelines(record.to_json() + "\n" for record in records)
            file.flush()
            os.fsync(file.fileno())

    def read(self, name: str) -> list[Any]:
        """The records of ``<name>.jsonl``, gzipped or not; none where there is no file. A torn last line is dropped."""
        path = self.path / f"{name}.jsonl"
        if not path.exists() and not packed(path).exists():
            return []
        try:
            *lines, _ = read_packed(path).decode().split("\n")
        except OSError as error:
            raise InputError(f"{error.filename} cannot be read ({error.strerror}); restore the file") from None
        return [self._parse(name, number, line) for number, line in enumerate(lines, 1)]

    def replace(self, name: str, records: Sequence[Record]) -> None:
        """Writes ``<name>.jsonl`` anew, atomically."""
        content = "".join(record.to_json() + "\n" for record in records)
        write_atomically(self.path / f"{name}.jsonl", content.encode())

    def _parse(self, name: str, number: int, line: str) -> Record:
        try:
            return LINES[name].model_validate(upgrade_line(name, json.loads(line)))
        except ValidationError as error:
            found = describe(error, LINES[name])
        except (ValueError, AttributeError, RecursionError):
            found = "  it is not a JSON object"
        raise InputError(
            f"{self.path / name}.jsonl, line {number}, is no such record:\n{found}\nRestore the file, or start over "
            "with --overwrite"
        )

    def sizes(self) -> dict[str, int]:
        """Bytes in each record file: what a checkpoint remembers."""
        paths = {name: self.path / f"{name}.jsonl" for name in RECORDS}
        return {name: path.stat().st_size if path.exists() else 0 for name, path in paths.items()}

    def sums(self) -> dict[str, str]:
        """The checksum of each record file: what a checkpoint remembers."""
        paths = {name: self.path / f"{name}.jsonl" for name in RECORDS}
        return {name: sha256(path) for name, path in paths.items() if path.exists()}

    def truncate(self, sizes: dict[str, int], sums: dict[str, str]) -> None:
        """Cuts the record files back to what they were at a checkpoint, if that is still in them."""
        for name in RECORDS:
            size, path = sizes[name], self.path / f"{name}.jsonl"
            actual = path.stat().st_size if path.exists() else 0
            if actual < size:
                raise InputError(
                    f"{path} has {actual} bytes, but the checkpoint was written when it had {size}: records were lost; "
                    "start over with --overwrite"
                )
            if name in sums:
                verify(path, sums[name], size)
            if actual:
                os.truncate(path, size)


def remove_checkpoints(folder: Path, but: Path | None = None) -> None:
    """Removes the checkpoints in ``folder``, and what a crash left of them; whatever else is there is not ours."""
    for path in (*folder.glob("epoch-*"), *folder.glob(".epoch-*")):
        if path != but and path.is_dir() and not path.is_symlink():
            remove(path)
