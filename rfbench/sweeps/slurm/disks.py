"""Whether other machines can see a folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "ramfs", "overlay", "f2fs", "jfs", "reiserfs", "vfat")
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")


def local_disk(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Why other machines will not see ``folder``, as far as it can be told; None where they may."""
    path = folder.resolve()
    for parent in {Path(name).resolve() for name in (*TEMPORARY, tempfile.gettempdir())}:
        if path.is_relative_to(parent):
            return f"{parent} is each machine's own"
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    places = [(Path(fields[1].replace("\\040", " ")), fields[2]) for fields in map(str.split, lines) if len(fields) > 2]
    around = [place for place in places if path.is_relative_to(place[0])]
    if not around:
        return None
    mount, kind = max(around, key=lambda place: len(place[0].parts))
    return f"{mount} is a disk of this machine ({kind})" if kind in LOCAL else None
