"""Files and folders: checksums, and writing and removing that a crash leaves either old or new."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rfbench.errors import DamagedFileError


def sha256(path: Path, size: int | None = None) -> str:
    """The checksum of one file's content, or of its first ``size`` bytes."""
    left = path.stat().st_size if size is None else size
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(min(left, 1 << 20)):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def sha256_of_all(paths: Iterable[Path]) -> str:
    """One checksum of several files: of their names and contents, wherever they lie."""
    files = sorted(paths)
    if len(files) == 1:
        return sha256(files[0])
    top = Path(os.path.commonpath(files)) if files else Path()
    lines = "".join(f"{path.relative_to(top).as_posix()} {sha256(path)}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def verify(path: Path, expected: str, size: int | None = None) -> None:
    """A ``DamagedFileError`` with both checksums where ``path``, up to byte ``size``, is not what was written."""
    actual = sha256(path, size) if path.exists() else "no file"
    if actual != expected:
        raise DamagedFileError(
            f"{path} is damaged: sha256 is {actual}, expected {expected}; "
            "restore the file, or start over with --overwrite"
        )


def packed(path: Path) -> Path:
    """Where the gzipped form of a file lies."""
    return path.with_name(f"{path.name}.gz")


def read_packed(path: Path) -> bytes:
    """A file's content, of its gzipped form where that alone is there; an ``OSError`` where neither can be read."""
    if path.exists() or not packed(path).exists():
        return path.read_bytes()
    try:
        return gzip.decompress(packed(path).read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise OSError(errno.EIO, "a damaged gzip file", str(packed(path))) from None


def write_atomically(path: Path, content: bytes, writer: int = 0) -> None:
    """Writes a file that a crash leaves either old or new. ``writer``: which of several that may write it at once."""
    temporary = path.with_name(f"{path.name}.tmp{writer or ''}")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of what is at ``path`` when it is complete.

    A crash leaves what was there or what is new, at ``path`` or, for a moment, at ``set_aside(path)``; an error leaves
    what was there. One process at a time.
    """
    temporary, former = path.with_name(f".{path.name}.rfbench-tmp"), set_aside(path)
    if os.path.lexists(path):
        remove(former)
    elif former.is_dir():  # a crash came between the two renames
        os.rename(former, path)
    remove(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if os.path.lexists(path):
        os.rename(path, former)
    os.rename(temporary, path)
    sync(path.parent)
    remove(former)


def set_aside(path: Path) -> Path:
    """Where ``whole_folder`` keeps what was at ``path`` while the new folder takes its place."""
    return path.with_name(f".{path.name}.rfbench-old")


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with what is in it: seen by others at once or not at all."""
    if path.is_dir() and not path.is_symlink():
        going = path.with_name(f".{path.name.lstrip('.')}.rfbench-removed")
        shutil.rmtree(going, ignore_errors=True)
        os.rename(path, going)
        shutil.rmtree(going, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Makes what was written to a file, or renamed in a folder, survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
