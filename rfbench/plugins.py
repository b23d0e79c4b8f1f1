"""Look-up of algorithms, models, rewards and prompt sets by entry point."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel, ValidationError

from rfbench.errors import InputError
from rfbench.suggest import did_you_mean
from rfbench.suite import describe

KINDS = ("algorithms", "models", "rewards", "prompts")


def names(kind: str) -> list[str]:
    """The names registered for a kind, without importing any of them."""
    return sorted(_entries(kind))


def find(kind: str, name: str) -> Any:
    """The class registered under ``name``; an ``InputError`` with the nearest names when there is none."""
    entries = _entries(kind)
    singular = kind.removesuffix("s")
    if name not in entries:
        raise InputError(
            f"unknown {singular} {name!r}{did_you_mean(name, entries)}; installed: {', '.join(sorted(entries))}"
        )
    try:
        return entries[name].load()
    except Exception as error:
        raise InputError(
            f"the {singular} {name!r} ({entries[name].value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error


def configure(kind: str, name: str, config: type[BaseModel], options: dict[str, Any]) -> Any:
    """``options`` validated by a plugin's ``Config``; an ``InputError`` names the key and the nearest field."""
    try:
        return config.model_validate(options)
    except ValidationError as error:
        raise InputError(f"settings of the {kind.removesuffix('s')} {name!r}:\n{describe(error, config)}") from None


def _entries(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"rfbench.{kind}")}
