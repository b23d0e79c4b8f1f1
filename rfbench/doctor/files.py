"""A suite's file sets: here or not, whole or not, and of which commit. No weights are loaded."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rfbench.hub.sources import Need

Status = Literal["present", "missing", "wrong"]
PIECE = 2**24  # bytes that are hashed at a time
TORCH_FORMATS = (".pt", ".pth", ".bin", ".ckpt")


@dataclass(frozen=True)
class FileSet:
    """One source of a suite, as it is on this disk.

    Attributes:
        problems: what is missing or wrong, each with what to do about it where that is not plain.
        count, bytes: how many files it is, and what they take.
        commit: the hub's commit that they are of; None for local files.
        verified: files whose checksum was compared and is right; None where none was to be compared.
    """

    need: Need
    status: Status
    problems: tuple[str, ...] = ()
    count: int = 0
    bytes: int = 0
    commit: str | None = None
    verified: int | None = None


def examine(need: Need, *, checksum: bool = False) -> FileSet:
    """Looks at every file of a source; with ``checksum`` reads all of each file that the hub's cache knows one of."""
    source = need.source
    if source.find() is None:
        return FileSet(need, "missing", (source.complaint() or "",))
    paths = source.paths()
    problems = [f"{path} {problem}" for path in paths if (problem := format_problem(path))]
    verified = None
    if checksum:
        sums = {path: checksum_problem(path) for path in paths if published_checksum(path)}
        problems += [f"{path} {problem}" for path, problem in sums.items() if problem]
        verified = sum(problem is None for problem in sums.values())
    size = sum(path.stat().st_size for path in paths)
    status: Status = "wrong" if problems else "present"
    return FileSet(need, status, tuple(problems), len(paths), size, source.commit(), verified)


def format_problem(path: Path) -> str | None:
    """What shows, without reading all of it, that a file is not what its name says; None where nothing does."""
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        return "is empty"
    if head.startswith(b"version https://git-lfs"):
        return "is a git LFS pointer, not the file itself: run `git lfs pull` in its repository"
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _safetensors_problem(path)
    if suffix == ".json":
        return _json_problem(path)
    if suffix in TORCH_FORMATS and not (zipfile.is_zipfile(path) or head[0] == 0x80):
        return "is not a file of torch.save, or is cut off"
    if suffix == ".parquet" and not (head.startswith(b"PAR1") and _ends_with(path, b"PAR1")):
        return "is not a Parquet file, or is cut off"
    return None


def published_checksum(path: Path) -> str | None:
    """The name of a file's blob in the hub's cache: the SHA-256 of a large file, or git's SHA-1 of a small one."""
    blob = path.resolve()
    known = blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", blob.name)
    return blob.name if known else None


def checksum_problem(path: Path) -> str | None:
    """Whether a file of the hub's cache differs from its published checksum; None where it does not."""
    blob, expected = path.resolve(), published_checksum(path)
    digest = hashlib.sha256() if expected and len(expected) == 64 else hashlib.sha1(b"blob %d\0" % blob.stat().st_size)
    with open(blob, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    if digest.hexdigest() == expected:
        return None
    return f"has another checksum than published: it is damaged; remove {blob} and fetch again"


def _safetensors_problem(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return None if file.keys() else "holds no tensor"
    except SafetensorError as error:
        return f"is not a safetensors file, or is cut off ({error})"


def _json_problem(path: Path) -> str | None:
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        return f"is not valid JSON ({error})"
    return None


def _ends_with(path: Path, mark: bytes) -> bool:
    with open(path, "rb") as file:
        file.seek(-len(mark), 2)
        return file.read() == mark
