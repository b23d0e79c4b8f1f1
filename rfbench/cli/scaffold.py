"""``rfbench new algorithm NAME``: a small installable package with a working algorithm and its test."""

from __future__ import annotations

import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template

from rfbench.errors import InputError
from rfbench.plugins import registry


def new_algorithm(name: str, folder: Path) -> list[Path]:
    """Writes the package of an algorithm called ``name`` into ``folder``, which must not exist; returns its files."""
    title = "".join(map(str.capitalize, name.split("-")))
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(title):
        raise InputError(
            f"{name!r} cannot name an algorithm: use lower-case words joined by hyphens, such as my-method"
        )
    if name in registry.names("algorithms"):
        raise InputError(f"an algorithm {name!r} is installed already; choose another name")
    if folder.exists():
        raise InputError(f"{folder} exists already; remove it, or choose another --out")
    values = {"name": name, "module": "rfbench_" + name.replace("-", "_"), "title": title}
    folder.mkdir(parents=True)
    written = []
    templates = resources.files("rfbench.cli") / "templates" / "algorithm"
    for template in sorted(templates.iterdir(), key=lambda file: file.name):
        path = folder / Template(template.name.removesuffix(".txt")).substitute(values)
        path.write_text(Template(template.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
        written.append(path)
    return written
