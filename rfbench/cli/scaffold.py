"""``rfbench new KIND NAME``: a small installable package with a working plugin or suite, and its test."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path, PurePosixPath
from string import Template

from rfbench.errors import InputError, did_you_mean
from rfbench.plugins import registry
from rfbench.suite.loading import suite_names

if sys.version_info >= (3, 11):
    from importlib.resources.abc import Traversable
else:
    from importlib.abc import Traversable

HERE = PurePosixPath()
KINDS = {  # how a new one is tried, once it is installed
    "algorithm": "rfbench run $name --suite tiny-shapes",
    "reward": "rfbench reward check $name",
    "prompts": "pytest $folder",
    "model": "pytest $folder",
    "suite": "rfbench show $name",
}


def new_package(kind: str, name: str, folder: Path) -> str:
    """Writes the package of a plugin or suite into ``folder``, which must not exist; returns the line that tries it."""
    if kind not in KINDS:
        raise InputError(f"cannot write a new {kind!r}{did_you_mean(kind, KINDS)}; it is one of {', '.join(KINDS)}")
    title, one = "".join(map(str.capitalize, name.split("-"))), f"{'an' if kind == 'algorithm' else 'a'} {kind}"
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(title):
        raise InputError(f"{name!r} cannot name {one}: use lower-case words joined by hyphens, such as my-method")
    installed = suite_names() if kind == "suite" else registry.names(kind if kind == "prompts" else f"{kind}s")
    if name in installed:
        raise InputError(f"{one} {name!r} is installed already; choose another name")
    if folder.exists():
        raise InputError(f"{folder} exists already; remove it, or choose another --out")
    values = {"name": name, "module": "rfbench_" + name.replace("-", "_"), "title": title, "folder": str(folder)}
    for place, template in _templates(resources.files("rfbench.cli") / "templates" / kind):
        path = folder / Template(str(place).removesuffix(".txt")).substitute(values)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(template.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
    return Template(KINDS[kind]).substitute(values)


def _templates(folder: Traversable, place: PurePosixPath = HERE) -> Iterator[tuple[PurePosixPath, Traversable]]:
    """Every template below a folder, and where it stands there."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _templates(entry, place / entry.name)
        elif entry.name.endswith(".txt"):
            yield place / entry.name, entry
