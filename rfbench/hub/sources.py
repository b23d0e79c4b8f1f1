"""Where published files come from: a hub repository at a revision, or a local path that stands in for it.

A plugin that reads such files declares them in ``sources``. So a plan finds what is missing before anything loads,
``rfbench fetch`` downloads exactly that, and ``rfbench doctor`` reports on it. Nothing else goes online.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rfbench.errors import InputError

MOST_SETTINGS = 3  # that a message spells out
WILD = set("*?[")


def forms(files: str) -> list[tuple[str, ...]]:
    """The patterns of each form in which ``files`` may be there, such as "a.json" or "a.json | b.json + c.txt".

    Safetensors may be in shards, as large models are saved, with their index.
    """
    found = [tuple(form.split(" + ")) for form in files.split(" | ")]
    name = files.rpartition("/")[2]
    if name.endswith(".safetensors") and not WILD & set(name):
        shards = (f"{files}.index.json", f"{files.removesuffix('.safetensors')}-*-of-*.safetensors")
        return [*found, shards]
    return found


@dataclass(frozen=True)
class Source:
    """Files of one hub repository, or the local path in their stead.

    Attributes:
        setting: the field of the plugin's ``Config`` whose value is ``path``, such as "path".
        path: a hub id ("owner/name"), or a local file or folder.
        files: the files that are read, by name or glob pattern; of those in several `forms` the first that is there. A
            single plain name makes ``find`` return that file, anything else the repository's folder.
        revision: the hub's branch, tag or commit.
        kind: the hub's kind of repository.
        gigabytes: what a download takes, as far as known.
        memory_gigabytes: what the network made of it takes, where its files are in half precision.
    """

    setting: str
    path: str
    files: tuple[str, ...]
    revision: str = "main"
    kind: Literal["model", "dataset"] = "model"
    gigabytes: float | None = None
    memory_gigabytes: float | None = None

    @property
    def is_local(self) -> bool:
        """Whether ``path`` is a path: it exists, or it cannot be a hub id."""
        parts = self.path.split("/")
        return (
            Path(self.path).expanduser().exists() or len(parts) != 2 or not all(parts) or parts[0] in (".", "..", "~")
        )

    @property
    def is_single_file(self) -> bool:
        return len(self.files) == 1 and " | " not in self.files[0] and not WILD & set(self.files[0])

    def _forms(self, files: str) -> list[tuple[str, ...]]:
        return [(files,)] if self.is_single_file else forms(files)

    def patterns(self, is_there: Callable[[str], bool]) -> list[str]:
        """The patterns of all files that are read, each in the first form of which everything is there."""
        chosen = [next((form for form in self._forms(files) if all(map(is_there, form))), ()) for files in self.files]
        return [pattern for form in chosen for pattern in form]

    def lacking(self, is_there: Callable[[str], bool]) -> list[str]:
        """The files that are there in no form."""
        return [files for files in self.files if not any(all(map(is_there, form)) for form in self._forms(files))]

    def find(self) -> Path | None:
        """The file or folder on this disk: the local path, or the hub's cache; None where it is not complete."""
        root = Path(self.path).expanduser() if self.is_local else self._snapshot()
        if root is None or not root.exists():
            return None
        if root.is_file():
            return root if self.is_single_file else None
        if self.lacking(partial(_is_in, root)) or _lost_shards(root, self):
            return None
        return root / self.files[0] if self.is_single_file else root

    def paths(self) -> list[Path]:
        """Every file that is read, where ``find`` has found them."""
        found = self.find()
        if found is None or found.is_file():
            return [] if found is None else [found]
        patterns = self.patterns(partial(_is_in, found))
        return sorted({path for pattern in patterns for path in found.glob(pattern) if path.is_file()})

    def complaint(self) -> str | None:
        """What keeps ``find`` from finding, without the setting's name; None where it is found."""
        if self.find() is not None:
            return None
        if not self.is_local:
            what = f"{self.files[0]} of {self.path}" if self.is_single_file else self.path
            return f"{what}, from the hub, is not on this disk"
        path = Path(self.path).expanduser()
        if not path.exists():
            return f"there is no file or folder {self.path}"
        if path.is_file():
            return f"{self.path} is a file, but a folder with {', '.join(self.files)} is needed"
        lacking = self.lacking(partial(_is_in, path)) or _lost_shards(path, self)
        return f"the folder {self.path} has no {' and no '.join(lacking)}"

    def commit(self) -> str | None:
        """The hub's commit of the files that are on this disk; None for local files, and where there are none."""
        if self.is_local or self.find() is None:
            return None
        snapshot = self._snapshot()
        return None if snapshot is None else snapshot.name

    def origin(self) -> str:
        """What a run's record says of the files: the local path, or the hub id at the commit that is on this disk."""
        commit = self.commit()
        return self.path if commit is None else f"{self.path}@{commit}"

    def require(self, where: str) -> Path:
        """What ``find`` finds, or an ``InputError``; ``where`` is the plugin's place in the suite, such as "reward"."""
        found = self.find()
        if found is None:
            raise InputError(missing([Need(where, self)], "SUITE"))
        return found

    def _snapshot(self) -> Path | None:
        """The repository's folder in the hub's cache, where every file of a started download is in it.

        First with the files that have one form, to see in which forms the others are there.
        """
        certain = [files for files in self.files if len(self._forms(files)) == 1]
        folder = self._cached(certain or list(self._forms(self.files[0])[0]))
        return folder and self._cached(self.patterns(partial(_is_in, folder)))

    def _cached(self, patterns: list[str]) -> Path | None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = snapshot_download(
                self.path,
                repo_type=self.kind,
                revision=self.revision,
                allow_patterns=patterns,
                local_files_only=True,
            )
        except LocalEntryNotFoundError:
            return None
        return Path(folder)


def _is_in(root: Path, pattern: str) -> bool:
    return any(root.glob(pattern))


def _lost_shards(root: Path, source: Source) -> list[str]:
    """Shards that an index lists and that are not there."""
    indices = [
        index
        for pattern in source.patterns(partial(_is_in, root))
        if pattern.endswith(".index.json")
        for index in root.glob(pattern)
    ]
    lost = []
    for index in indices:
        with suppress(ValueError, KeyError, TypeError, AttributeError):  # what is no index is refused where it is read
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            folder = index.parent.relative_to(root)
            lost += [str(folder / name) for name in names if not (index.parent / name).exists()]
    return lost


class Sourced:
    """A plugin that may need things from outside: published files, or packages beyond rfbench's own. Most need none."""

    @classmethod
    def sources(cls, config: Any) -> list[Source]:
        """The files that a plugin of this ``Config`` reads."""
        return []

    @classmethod
    def inputs(cls, config: Any) -> dict[str, list[Path]]:
        """The user's own files among what it reads, by the setting that names them; what is in the hub is not."""
        return {source.setting: source.paths() for source in cls.sources(config) if source.is_local}

    @classmethod
    def components(cls, config: Any) -> dict[str, Any]:
        """Plugins inside this one, ``rfbench.plugins.component.Component`` by the setting that holds each."""
        return {}

    @classmethod
    def check(cls, config: Any) -> None:
        """Raises an ``InputError`` where files that are here are of the wrong kind, or a package is missing.

        It loads no weights. Files that are missing are reported elsewhere, from ``sources``.
        """

    @classmethod
    def remarks(cls, config: Any) -> list[str]:
        """What reading the files corrected, a sentence each."""
        return []


@dataclass(frozen=True)
class Need:
    """A source at its place in a suite: ``where`` is the plugin's table, such as "evaluation.held_out_rewards.0"."""

    where: str
    source: Source

    @property
    def setting(self) -> str:
        """What ``--set`` calls the path."""
        return f"{self.where}.{self.source.setting}"


def missing(needs: Sequence[Need], suite: str) -> str:
    """What is not here, how large it is, and the lines that fix it; ``suite`` is what the command line calls it."""
    lines = [f"{suite} needs files that are not here:"]
    lines += [f"  {need.setting}: {need.source.complaint()}{_size(need.source)}" for need in needs]
    return "\n".join([*lines, *remedies(needs, suite)])


def remedies(needs: Sequence[Need], suite: str) -> list[str]:
    """The lines that bring what is missing."""
    download = [need for need in needs if not need.source.is_local]
    lines = []
    if download:
        total = sum(source.gigabytes or 0 for source in {need.source for need in download})
        size = f" (about {total:.3g} GB)" if total else ""
        lines.append(f"To download{size}:  rfbench fetch {suite}   (with the same --set options)")
    settings = [f"--set {setting}=PATH" for setting in dict.fromkeys(need.setting for need in needs)]
    shown = " ".join(settings[:MOST_SETTINGS]) + (" ... for each of the above" if len(settings) > MOST_SETTINGS else "")
    lines.append(f"{'Or' if download else 'To'} use local copies:  {shown}")
    return lines


def _size(source: Source) -> str:
    if source.is_local or source.gigabytes is None:
        return ""
    return f" ({source.gigabytes:.1f} GB)" if source.gigabytes > 0.1 else f" ({1000 * source.gigabytes:.3g} MB)"
