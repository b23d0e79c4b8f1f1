"""What installed packages offer to rfbench: their entry points, looked for once."""

from __future__ import annotations

import importlib.metadata
import sys
from functools import lru_cache
from importlib.metadata import EntryPoint
from typing import Any


def entry_points(group: str) -> list[EntryPoint]:
    """The entry points of a group, of every package that can be imported now."""
    return list(_all(tuple(sys.path)).select(group=group))


@lru_cache(maxsize=1)
def _all(path: tuple[str, ...]) -> Any:
    return importlib.metadata.entry_points()  # reads a file of every package
