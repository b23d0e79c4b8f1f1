"""From a suite's name, or a TOML file, with ``key.path=value`` overrides, to a validated ``Suite``."""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rfbench.errors import InputError, did_you_mean
from rfbench.installed import entry_points
from rfbench.suite.settings import describe
from rfbench.suite.suite import Suite

if sys.version_info >= (3, 11):
    from importlib.resources.abc import Traversable

    import tomllib
else:
    from importlib.abc import Traversable

    import tomli as tomllib

NOT_TOML = (ValueError, RecursionError)  # ValueError: of the syntax, and of numbers with thousands of digits


def suite_names() -> list[str]:
    """The suites that are installed: rfbench's own, and those of other packages."""
    return sorted(_installed()[0])


def load_suite(name: str, overrides: Sequence[str] = ()) -> Suite:
    """The suite of that name, or in that TOML file, with ``key.path=value`` overrides applied and validated.

    A place in a list is a number: ``evaluation.held_out_rewards.0.path``.
    """
    return suite_of(_read(name), overrides, name)


def suite_of(data: dict[str, Any], overrides: Sequence[str], name: str) -> Suite:
    """The same of plain data, such as ``run.json``'s; ``name`` is what errors call it."""
    for override in overrides:
        apply_override(data, override)
    paths = [override.partition("=")[0] for override in overrides]
    try:
        return Suite.model_validate(data)
    except ValidationError as error:
        raise InputError(f"suite {name}:\n{describe(error, Suite)}{_meant(error, data, paths)}") from None
    except RecursionError:
        raise InputError(f"suite {name}: its tables are nested, or `like` one another, too deeply") from None


def _meant(error: ValidationError, data: dict[str, Any], paths: Sequence[str]) -> str:
    """Of each override that is an unknown key, the full names that end alike, a line each; the shortest if several."""
    unknown = [".".join(map(str, e["loc"])) for e in error.errors() if e["type"] == "extra_forbidden"]
    lines = ""
    for path in paths:
        if not any(path == start or path.startswith(f"{start}.") for start in unknown):
            continue
        alike = [name for name in _dotted_names(Suite, data) if name.endswith(f".{path}")]
        alike = [name for name in alike if name.count(".") == min(other.count(".") for other in alike)]
        if alike:
            more = f" and {len(alike) - 4} more" if len(alike) > 4 else ""
            lines += f"\n  did you mean {', '.join(alike[:4])}{more}?"
    return lines


def _dotted_names(model: type[BaseModel], data: Any, start: str = "") -> Iterator[str]:
    """Every key that can be set: those of the schema, and in tables with names of their own those that are there."""
    given = data if isinstance(data, dict) else {}
    for key in (*model.model_fields, *(key for key in given if key not in model.model_fields)):
        field = model.model_fields.get(key)
        inner = _models_in(field.annotation) if field else None
        yield f"{start}{key}"
        value = given.get(key)
        if inner is None:
            yield from _keys(value, f"{start}{key}.")
        elif field is not None and typing.get_origin(field.annotation) is dict:
            for name, table in value.items() if isinstance(value, dict) else ():
                yield f"{start}{key}.{name}"
                yield from _dotted_names(inner, table, f"{start}{key}.{name}.")
        elif field is not None and typing.get_origin(field.annotation) is not tuple:
            yield from _dotted_names(inner, value, f"{start}{key}.")


def _keys(value: Any, start: str) -> Iterator[str]:
    """The keys of plain tables."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield f"{start}{key}"
        yield from _keys(inner, f"{start}{key}.")


def _models_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model that an annotation holds, such as that of ``dict[str, Tier]`` or ``Tier | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in typing.get_args(annotation) if (found := _models_in(inner))), None)


def _read(name: str) -> dict[str, Any]:
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"there is no suite file {name}; `rfbench list suites` shows the suites that ship")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the suite file {name} cannot be read as UTF-8 text: {error}") from None
    else:
        text = _installed_file(name).read_text(encoding="utf-8")
    try:
        return tomllib.loads(text)
    except NOT_TOML as error:
        raise InputError(f"suite {name} is not valid TOML: {error}") from None


def _installed() -> tuple[dict[str, list[tuple[str, Traversable]]], list[str]]:
    """Each suite's file beside the distribution that brings it, by name; and what could not be read.

    An entry of the group ``rfbench.suites`` names a package; the TOML files in it are suites.
    """
    found: dict[str, list[tuple[str, Traversable]]] = {}
    broken = []
    for entry in entry_points("rfbench.suites"):
        distribution = entry.dist.name if entry.dist else entry.value
        try:
            files = list(resources.files(entry.value).iterdir())
        except Exception as error:  # another package's code; it must not keep the other suites from their users
            broken.append(f"the suites of {distribution} ({entry.value}) cannot be read: {error}")
            continue
        for file in files:
            if file.name.endswith(".toml"):
                found.setdefault(file.name.removesuffix(".toml"), []).append((distribution, file))
    return found, broken


def _installed_file(name: str) -> Traversable:
    found, broken = _installed()
    places = found.get(name, [])
    if len(places) > 1:
        both = " and ".join(distribution for distribution, _ in places)
        raise InputError(f"{both} both bring a suite {name!r}: uninstall one, or give the path of a .toml file")
    if places:
        return places[0][1]
    known = sorted(found)
    listed = f"the suites are {', '.join(known)}" if known else "none is installed: install rfbench again"
    reasons = "".join(f"\n  {reason}" for reason in broken)
    raise InputError(
        f"unknown suite {name!r}{did_you_mean(name, known)}; {listed}, or give the path of a .toml file{reasons}"
    )


def apply_override(data: dict[str, Any], override: str) -> None:
    """Sets ``key.path=value`` in place; the value is read as TOML, and as a plain string where that fails."""
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise InputError(f"--set {override}: expected key=value, for example --set epochs=10")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except NOT_TOML:
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
