"""From a suite's name, or a TOML file, with ``key.path=value`` overrides, to a validated ``Suite``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rfbench.errors import InputError, did_you_mean
from rfbench.suite.settings import describe
from rfbench.suite.suite import Suite

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def suite_names() -> list[str]:
    """The suites that ship with rfbench."""
    folder = resources.files("rfbench_benchmarks") / "suites"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_suite(name: str, overrides: Sequence[str] = ()) -> Suite:
    """The suite of that name, or in that TOML file, with ``key.path=value`` overrides applied and validated.

    A place in a list is a number: ``evaluation.held_out_rewards.0.path``.
    """
    return suite_of(_read(name), overrides, name)


def suite_of(data: dict[str, Any], overrides: Sequence[str], name: str) -> Suite:
    """The same of plain data, such as ``run.json``'s; ``name`` is what errors call it."""
    for override in overrides:
        apply_override(data, override)
    try:
        return Suite.model_validate(data)
    except ValidationError as error:
        raise InputError(f"suite {name}:\n{describe(error, Suite)}") from None


def _read(name: str) -> dict[str, Any]:
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"there is no suite file {name}; `rfbench list suites` shows the suites that ship")
        text = path.read_text(encoding="utf-8")
    elif name in suite_names():
        text = (resources.files("rfbench_benchmarks") / "suites" / f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise InputError(
            f"unknown suite {name!r}{did_you_mean(name, suite_names())}; "
            f"the suites are {', '.join(suite_names())}, or give the path of a .toml file"
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"suite {name} is not valid TOML: {error}") from None


def apply_override(data: dict[str, Any], override: str) -> None:
    """Sets ``key.path=value`` in place; the value is read as TOML, and as a plain string where that fails."""
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise InputError(f"--set {override}: expected key=value, for example --set epochs=10")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = path.split(".")
    table: Any = data
    for parent in parents:
        table = table[_index(table, parent, override)] if isinstance(table, list) else table.setdefault(parent, {})
        if not isinstance(table, (dict, list)):
            raise InputError(f"--set {override}: {parent!r} is a value, not a table")
    table[_index(table, last, override) if isinstance(table, list) else last] = value


def _index(items: list[Any], key: str, override: str) -> int:
    """The place in a list that a part of a dotted name stands for."""
    if not (key.isdecimal() and int(key) < len(items)):
        raise InputError(f"--set {override}: {key!r} stands where a list has its places 0 to {len(items) - 1}")
    return int(key)
