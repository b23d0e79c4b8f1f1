"""Files: checksums, and writing that a crash leaves either old or new."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from rfbench.errors import DamagedFileError


def sha256(path: Path) -> str:
    """The checksum of one file's content."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_all(paths: Iterable[Path]) -> str:
    """One checksum of several files: of their names and contents, wherever they lie."""
    files = sorted(paths)
    if len(files) == 1:
        return sha256(files[0])
    top = Path(os.path.commonpath(files)) if files else Path()
    lines = "".join(f"{path.relative_to(top).as_posix()} {sha256(path)}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def verify(path: Path, expected: str) -> None:
    """A ``DamagedFileError`` with both checksums when ``path`` is not what was written."""
    actual = sha256(path) if path.exists() else "no file"
    if actual != expected:
        raise DamagedFileError(
            f"{path} is damaged: sha256 is {actual}, expected {expected}; "
            "restore the file, or start over with --overwrite"
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that a crash leaves either old or new."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def sync(path: Path) -> None:
    """Makes what was written to a file, or renamed in a folder, survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
