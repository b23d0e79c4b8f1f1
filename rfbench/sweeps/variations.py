"""``--vary KEY=V,V``: a suite's table, and the tables that differ from it in some fields."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rfbench.errors import InputError
from rfbench.suite.suite import Suite

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class _Value:
    """One value of a varied field: as it was written, and as an override takes it."""

    key: str
    written: str
    value: str

    @property
    def parsed(self) -> Any:
        return _toml(self.value)


def variants(suite: Suite, label: str, variations: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each combination of the variations: a name for the table, and the overrides that make it; first, unvaried.

    Args:
        variations: ``KEY=V,V``: values that a field of the table ``label`` takes in turn, as TOML. ``x3`` is three
            times what the table says.
    """
    if not variations:
        yield label, []
        return
    table = suite.settings_for(label).model_dump(mode="json")
    fields = [_values(table, label, variation) for variation in variations]
    keys = [values[0].key for values in fields]
    if len(set(keys)) < len(keys):
        raise InputError(f"--vary names a field twice: {', '.join(keys)}; give all its values in one KEY=V,V")
    for values in itertools.product(*fields):
        changed = [value for value in values if value.written != "x1"]
        variant = "-".join([label, *(_name(value) for value in changed)])
        if not changed:
            yield label, []
            continue
        start = f"algorithms.{variant}"
        like = [f"{start}.like={label}"] if label in suite.algorithms else [f"{start}.algorithm={label}"]
        yield variant, like + [f"{start}.{value.key}={value.value}" for value in changed]


def _name(value: _Value) -> str:
    """What a change adds to a table's name, of characters that a TOML key takes: a dot would divide it."""
    return re.sub(r"[^\w-]", "_", f"{value.key.rpartition('.')[2]}-{value.written}")


def _values(table: dict[str, Any], label: str, variation: str) -> list[_Value]:
    """``KEY=V,V``, each value once."""
    key, separator, texts = variation.partition("=")
    if not (separator and key and texts):
        raise InputError(f"--vary {variation}: expected KEY=V,V, for example --vary optimizer.learning_rate=x0.3,x1,x3")
    values = [_Value(key, text, _value(table, label, key, text)) for text in _split(texts)]
    for first, second in itertools.combinations(values, 2):
        if first.parsed == second.parsed and isinstance(first.parsed, bool) == isinstance(second.parsed, bool):
            raise InputError(
                f"--vary {variation} names something twice: {first.written} and {second.written} are the same value"
            )
    return values


def _split(texts: str) -> list[str]:
    """Cut at the commas that stand outside of brackets and quotes: a value may be a list."""
    parts, depth, quote = [""], 0, ""
    for character in texts:
        if character == "," and not (depth or quote):
            parts.append("")
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            depth += (character in "[{") - (character in "]}")
        parts[-1] += character
    return [part.strip() for part in parts]


def _value(table: dict[str, Any], label: str, key: str, text: str) -> str:
    if not text.startswith("x"):
        return text
    own: Any = table
    for part in key.split("."):
        own = own.get(part) if isinstance(own, dict) else None
    if isinstance(own, bool) or not isinstance(own, int | float):
        raise InputError(
            f"--vary {key}={text}: {text} multiplies what algorithms.{label} says, and {key} is {own!r} there"
        )
    try:
        return repr(own * float(text[1:]))
    except ValueError:
        raise InputError(f"--vary {key}={text}: {text[1:]!r} is not a number") from None


def _toml(text: str) -> Any:
    """The value as a ``--set`` reads it."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
