"""A pickle that runs code where it is loaded, as an attacker's checkpoint would."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

IT_RAN = "it-ran"


class Program:
    """Its pickle makes a folder: ``it-ran`` where the loading process works, or another."""

    def __init__(self, folder: str | Path = IT_RAN) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)
