"""Where published files come from: a hub repository at a revision, or a local path that stands in for it.

A plugin that reads such files declares them in ``sources``. So a plan finds what is missing before anything loads,
``rfbench fetch`` downloads exactly that, and ``rfbench doctor`` reports on it. Nothing else goes online.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rfbench.errors import InputError


@dataclass(frozen=True)
class Source:
    """Files of one hub repository, or the local path in their stead.

    Attributes:
        setting: the field of the plugin's ``Config`` whose value is ``path``, such as "path".
        path: a hub id ("owner/name"), or a local file or folder.
        files: the files that are read, by name or glob pattern. A single plain name makes ``find`` return that file,
            anything else the repository's folder.
        revision: the hub's branch, tag or commit.
        kind: the hub's kind of repository.
        gigabytes: what a download takes, as far as known.
    """

    setting: str
    path: str
    files: tuple[str, ...]
    revision: str = "main"
    kind: Literal["model", "dataset"] = "model"
    gigabytes: float | None = None

    @property
    def is_local(self) -> bool:
        """Whether ``path`` is a path: it exists, or it cannot be a hub id."""
        parts = self.path.split("/")
        return (
            Path(self.path).expanduser().exists() or len(parts) != 2 or not all(parts) or parts[0] in (".", "..", "~")
        )

    def find(self) -> Path | None:
        """The file or folder on this disk: the local path, or the hub's cache; None where it is not complete."""
        if self.is_local:
            path = Path(self.path).expanduser()
            return path if path.exists() else None
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = Path(
                snapshot_download(
                    self.path,
                    repo_type=self.kind,
                    revision=self.revision,
                    allow_patterns=list(self.files),
                    local_files_only=True,
                )
            )
        except LocalEntryNotFoundError:
            return None
        if not all(any(folder.glob(pattern)) for pattern in self.files):
            return None
        return folder / self.files[0] if self._single_file else folder

    def require(self, where: str) -> Path:
        """The same, or an ``InputError``; ``where`` is the plugin's place in the suite, such as "reward"."""
        found = self.find()
        if found is not None:
            return found
        setting = f"{where}.{self.setting}"
        if self.is_local:
            raise InputError(f"{setting} is {self.path!r}, but there is no such file or folder")
        raise InputError(
            f"{setting} is {self.path!r} on the hub, and {', '.join(self.files)} of revision {self.revision} is not on "
            f"this disk; `rfbench fetch` downloads it, or use --set {setting}=<local path>"
        )

    @property
    def _single_file(self) -> bool:
        return len(self.files) == 1 and not set(self.files[0]) & set("*?[")


class Sourced:
    """A plugin that may read published files; most read none."""

    @classmethod
    def sources(cls, config: Any) -> list[Source]:
        """The files that a plugin of this ``Config`` reads."""
        return []
