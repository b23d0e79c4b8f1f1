"""A suite as a TOML file that can be saved, edited and run: every key with its value, default, unit and meaning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rfbench.plugins.component import find_component
from rfbench.suite import toml
from rfbench.suite.suite import AlgorithmSettings, PluginRef, Suite

COMMENT_COLUMN = 36


def document(suite: Suite, suite_hash: str, labels: Iterable[str]) -> str:
    """The suite with its plugins' settings resolved, and the tables of ``labels``, listed in it or not.

    A key without a value is a comment. What a comment says first is the default, where the value differs from it.
    """
    lines = [f"# {suite.name} version {suite.version}, hash {suite_hash}"]
    tables = {label: suite.settings_for(label) for label in labels}
    shown = suite.model_copy(update={"algorithms": tables})
    lines += _table(shown, "")
    return "\n".join(lines) + "\n"


def _table(model: BaseModel, path: str) -> Iterator[str]:
    """The lines of one table: its own keys, and after them the tables in it."""
    inner: list[tuple[str, Any]] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        place = f"{path}.{toml.key(name)}" if path else toml.key(name)
        if _is_table(value):
            inner.append((place, value))
        elif name == "config" and isinstance(model, AlgorithmSettings):
            continue  # with the algorithm's own settings, below
        else:
            yield _line(name, _plain(value), field)
    for place, value in inner:
        if isinstance(value, Mapping):
            for name, one in value.items():
                yield from _headed(f"{place}.{toml.key(name)}", one, place, name)
        else:
            yield from _headed(place, value, place, place)


def _is_table(value: Any) -> bool:
    return isinstance(value, BaseModel) or (
        isinstance(value, Mapping) and all(isinstance(one, BaseModel) for one in value.values())
    )


def _headed(place: str, value: BaseModel, kind: str, name: str) -> Iterator[str]:
    """A table below its heading; of a plugin, with the plugin's settings."""
    yield ""
    yield f"[{place}]"
    if isinstance(value, PluginRef):
        yield f"name = {toml.inline(value.name)}"
        yield from _settings(KINDS[kind], value)
        return
    yield from _table(value, place)
    if isinstance(value, AlgorithmSettings):
        yield ""
        yield f"[{place}.config]"
        yield from _settings("algorithms", PluginRef(name=value.algorithm or name, **value.config))


KINDS = {"model": "models", "reward": "rewards", "prompts": "prompts"}  # the kind of plugin that a place names


def _settings(kind: str, plugin: PluginRef) -> Iterator[str]:
    """A plugin's settings, validated by its own ``Config``."""
    config = find_component(kind, plugin).config
    for name, field in type(config).model_fields.items():
        yield _line(name, _plain(getattr(config, name)), field)


def _plain(value: Any) -> Any:
    """Models and tuples as the tables and lists of a file."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _line(name: str, value: Any, field: FieldInfo) -> str:
    default = None if field.is_required() else _plain(field.get_default(call_default_factory=True))
    text = f"# {toml.key(name)} =" if value is None else f"{toml.key(name)} = {toml.inline(value)}"
    notes = []
    if not field.is_required() and default != value:
        notes.append(f"default {'unset' if default is None else toml.inline(default)}")
    if value is None:
        notes.append("unset")
    if field.description:
        notes.append(" ".join(field.description.split()))
    return f"{text:{COMMENT_COLUMN}}  # {'; '.join(notes)}" if notes else text
