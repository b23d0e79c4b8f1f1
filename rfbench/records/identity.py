"""What makes two runs the same: to go on with one, to pool seeds, to compare variants. Declared once, field by field.

A suite's field says on its own what it decides (`rfbench.suite.settings`):

- by default it is part of the **experiment**: it can change what is measured, so it must agree to resume, to pool and
  to compare, and it is part of the suite's hash;
- ``RESUME``: it cannot change a training curve, but a run must keep it from its first epoch to its last;
- ``FREE``: it may change at any time.

The settings of the algorithm are the variant's: they must agree to resume and to pool. Beside the settings there are
the code of plugins that are not rfbench's own, the versions of the rewards, the content of the user's own files, and
the number of processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rfbench.records.format import PluginRecord, RewardRecord
from rfbench.suite.suite import Suite

Purpose = Literal["resume", "pool", "compare"]
Level = Literal["experiment", "variant", "resume", "free"]
DECIDES: dict[Purpose, tuple[Level, ...]] = {
    "resume": ("experiment", "variant", "resume"),
    "pool": ("experiment", "variant"),
    "compare": ("experiment",),
}


class Experiment(Protocol):
    """A run, recorded (``RunRecord``) or planned."""

    @property
    def suite(self) -> dict[str, Any]: ...
    @property
    def variant(self) -> str: ...
    @property
    def plugins(self) -> dict[str, PluginRecord]: ...
    @property
    def inputs(self) -> dict[str, str]: ...
    @property
    def rewards(self) -> dict[str, RewardRecord] | None: ...
    @property
    def processes(self) -> int: ...


COMPARED = tuple(name for name, member in vars(Experiment).items() if isinstance(member, property))


@dataclass(frozen=True)
class Planned:
    """A run that is not recorded yet; ``rewards`` are known once they are loaded."""

    suite: dict[str, Any]
    variant: str
    plugins: dict[str, PluginRecord]
    inputs: dict[str, str]
    processes: int
    rewards: dict[str, RewardRecord] | None = None


class Difference(NamedTuple):
    """A field that two runs disagree on."""

    field: str
    first: Any
    second: Any

    def __str__(self) -> str:
        return f"{self.field}: {self.first!r} against {self.second!r}"


class Value(NamedTuple):
    level: Level
    value: Any
    of_reward: bool = False  # a reward's unit or version


def differences(first: Experiment, second: Experiment, purpose: Purpose) -> list[Difference]:
    """The fields that must agree for ``purpose`` and do not, in the order of the suite."""
    if all(getattr(first, name) == getattr(second, name) for name in COMPARED):
        return []
    a, b = _identity(first), _identity(second)
    if first.rewards is None or second.rewards is None:  # not recorded: nothing to disagree on
        a, b = ({name: value for name, value in fields.items() if not value.of_reward} for fields in (a, b))
    found = []
    for name in [*a, *(name for name in b if name not in a)]:
        level = (a.get(name) or b[name]).level
        left, right = (values[name].value if name in values else None for values in (a, b))
        if level in DECIDES[purpose] and left != right:
            found.append(Difference(name, left, right))
    return found


def suite_hash(suite: Mapping[str, Any], inputs: Collection[str]) -> str:
    """Hash of what comparable runs share, of a suite with every default filled in.

    A field that is None is as if it did not exist, so that a new one leaves old hashes as they are. The paths of
    ``inputs`` are left out: their content counts, not where it lies.
    """
    fields = _suite_fields(suite, inputs)
    return _hash({name: found.value for name, found in fields if found.level == "experiment"})


def variant_hash(suite: Mapping[str, Any], variant: str) -> str:
    """Hash of an algorithm's settings, every default filled in."""
    return _hash(dict(_flat(suite["algorithms"][variant])))


def _hash(fields: dict[str, Any]) -> str:
    known = {name: value for name, value in fields.items() if value is not None}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def _identity(run: Experiment) -> dict[str, Value]:
    """Everything that identifies a run, by name."""
    fields = dict(_suite_fields(run.suite, run.inputs))
    settings = run.suite.get("algorithms", {}).get(run.variant, {})
    fields |= {f"algorithms.{run.variant}.{name}": Value("variant", value) for name, value in _flat(settings)}
    for place, plugin in run.plugins.items():
        level: Level = "variant" if place == "algorithm" else "experiment"
        if plugin.sha256 is not None:
            fields[f"the code of {place}, {plugin.origin}, sha256"] = Value(level, plugin.sha256)
    for place, digest in run.inputs.items():
        fields[f"the content of {place}, sha256"] = Value("experiment", digest)
    for name, reward in (run.rewards or {}).items():
        fields[f"the unit of {name}"] = Value("experiment", reward.unit, of_reward=True)
        fields[f"the version of {name}"] = Value("experiment", reward.version, of_reward=True)
    return fields | {"processes": Value("resume", run.processes)}


def _suite_fields(suite: Mapping[str, Any], inputs: Collection[str]) -> Iterator[tuple[str, Value]]:
    """Every leaf of a resolved suite but its algorithms', with what it decides."""
    for name, value in _flat({key: value for key, value in suite.items() if key != "algorithms"}):
        if name not in inputs:
            yield name, Value(level_of(name), value)


@lru_cache(maxsize=4096)
def level_of(name: str) -> Level:
    """What a suite's field, such as ``evaluation.sets.seen.final.num_prompts``, decides."""
    annotation: Any = Suite
    for part in name.split("."):
        if get_origin(annotation) in (dict, tuple):  # the part is a key or a place, and no field
            annotation = get_args(annotation)[1 if get_origin(annotation) is dict else 0]
            continue
        field = _fields(annotation).get(part)
        if field is None:  # a plugin's own option
            break
        if isinstance(field.json_schema_extra, dict) and "identity" in field.json_schema_extra:
            return cast(Level, field.json_schema_extra["identity"])
        annotation = field.annotation
    return "experiment"


def _fields(annotation: Any) -> dict[str, FieldInfo]:
    """The fields of a model, or of the one that a union with None holds."""
    models = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
    return models[0].model_fields if models else {}


def _flat(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf; the places of a list of tables are numbers."""
    if isinstance(data, Mapping):
        items = list(data.items())
    elif isinstance(data, list) and any(isinstance(item, Mapping) for item in data):
        items = list(enumerate(data))
    else:
        yield prefix, data
        return
    dot = "." if prefix else ""
    for name, value in items:
        yield from _flat(value, f"{prefix}{dot}{name}")
