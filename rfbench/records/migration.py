"""Records of earlier formats, read as those of today's.

Format 1 called some keys otherwise, and stored the settings of plugins as they were typed. What was not typed had the
defaults of its time: those of rfbench's own plugins, the same from the first shipped record to the last, stand in
``defaults_of_format_1.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from typing import Any

from pydantic import ValidationError

from rfbench.errors import InputError
from rfbench.records import identity
from rfbench.records.format import FORMAT, PluginRecord, RunRecord, check_format
from rfbench.suite.settings import describe

RENAMED = {  # by the file they stand in, format 1 -> 2
    "run": {"algorithm": "variant"},
    "counters": {"unet_forwards": "denoiser_forwards", "unet_backwards": "denoiser_backwards"},
    "metrics": {"unet_forwards": "denoiser_forwards", "unet_backwards": "denoiser_backwards"},
    "evals": {"prompts": "evaluation_set"},
    "quick": {"prompts": "evaluation_set"},
    "final": {"prompts": "evaluation_set"},
}
NOT_RECORDED = ("prompts", "rewards", "files", "host", "job", "restart")  # keys that records of format 1 may lack


def parse_run(content: bytes, where: str) -> RunRecord:
    """``run.json`` of any format as today's record; an ``InputError`` says what is wrong with it."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        what = "is empty" if not content.strip() else "is not valid JSON: it was cut off, or edited"
        raise InputError(f"{where} {what}; restore the file, or start over with --overwrite") from None
    if not isinstance(data, dict):
        raise InputError(f"{where} is not a record of a run; restore the file, or start over with --overwrite")
    check_format(data.get("format"), where)
    try:
        record = RunRecord.model_validate(upgrade_run(data))
        _check_names(record, where)
        return record
    except ValidationError as error:
        raise InputError(
            f"{where} is not a record of a run:\n{describe(error, RunRecord)}\nRestore the file, or start over with "
            "--overwrite"
        ) from None


def _check_names(record: RunRecord, where: str) -> None:
    """A run is of its suite's name, and of one of its suite's algorithms."""
    name, tables = record.suite.get("name"), record.suite.get("algorithms")
    if not isinstance(name, str):
        raise InputError(
            f"{where}: suite.name is {name!r}, not a name; restore the file, or start over with --overwrite"
        )
    if not isinstance(tables, dict) or record.variant not in tables:
        known = ", ".join(tables) if isinstance(tables, dict) else repr(tables)
        raise InputError(
            f"{where}: the variant is {record.variant!r}, but the suite's algorithms are {known}; restore the file, or "
            "start over with --overwrite"
        )


def upgrade_run(record: dict[str, Any]) -> dict[str, Any]:
    """``run.json`` in today's format; what is not a record of format 1 is left for validation to refuse."""
    try:
        return _upgrade_run(record) if record.get("format") == 1 else record
    except (KeyError, TypeError, AttributeError):
        return record


def upgrade_line(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """A line of ``<name>.jsonl`` in today's format."""
    return _renamed(record, RENAMED[name])


def renamed_keys(name: str, keys: Iterable[str]) -> dict[str, str]:
    """Those of ``keys``, of the records ``<name>.jsonl``, that are called otherwise today, with today's names."""
    return {key: RENAMED[name][key] for key in keys if key in RENAMED[name]}


def _upgrade_run(record: dict[str, Any]) -> dict[str, Any]:
    upgraded: dict[str, Any] = dict.fromkeys(NOT_RECORDED) | _renamed(record, RENAMED["run"]) | {"format": FORMAT}
    variant, suite = upgraded["variant"], _resolved(record["suite"], upgraded["variant"])
    upgraded["counters"] = _renamed(record["counters"], RENAMED["counters"])
    upgraded["suite"] = suite
    upgraded["inputs"] = {}
    upgraded["suite_hash"] = identity.suite_hash(suite, ())
    upgraded["variant_hash"] = identity.variant_hash(suite, variant)
    names = {"algorithm": suite["algorithms"][variant]["algorithm"]}
    names |= {kind: suite[kind]["name"] for kind in ("model", "reward")}
    upgraded["plugins"] = {place: _plugin(names[place], origin) for place, origin in record["plugins"].items()}
    return upgraded


def _resolved(suite: dict[str, Any], variant: str) -> dict[str, Any]:
    """The suite with the defaults of its plugins."""
    table = suite["algorithms"][variant]
    name = table.get("algorithm") or variant
    config = _filled("algorithms", {"name": name, **table["config"]})
    del config["name"]
    evaluation = suite["evaluation"]
    rewards = [_filled("rewards", reward) for reward in evaluation.get("held_out_rewards", ())]
    return suite | {
        "model": _filled("models", suite["model"]),
        "reward": _filled("rewards", suite["reward"]),
        "prompts": {key: _filled("prompts", prompts) for key, prompts in suite["prompts"].items()},
        "evaluation": evaluation | {"held_out_rewards": rewards},
        "algorithms": {variant: table | {"algorithm": name, "config": config}},
    }


def _filled(kind: str, table: dict[str, Any]) -> dict[str, Any]:
    """A plugin's table with its defaults, and with those of the rewards inside it."""
    filled = _defaults()[kind].get(table["name"], {}) | table
    if kind == "rewards" and isinstance(filled.get("terms"), list):
        filled["terms"] = [_filled(kind, term) for term in filled["terms"]]
    if kind == "rewards" and isinstance(filled.get("reward"), dict):
        filled["reward"] = _filled(kind, filled["reward"])
    return {"name": filled.pop("name"), **filled}


def _plugin(name: str, origin: str) -> dict[str, Any]:
    """Format 1 wrote "rfbench 0.1.0", or a file's path and its checksum."""
    file = re.fullmatch(r"(?P<path>.*) sha256 (?P<sha256>[0-9a-f]{64})", origin)
    known = PluginRecord(name=name, origin=file["path"] if file else origin, sha256=file["sha256"] if file else None)
    return known.model_dump()


def _renamed(record: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in record.items()}


@lru_cache(maxsize=1)
def _defaults() -> dict[str, dict[str, dict[str, Any]]]:
    text = (resources.files("rfbench.records") / "defaults_of_format_1.json").read_text(encoding="utf-8")
    return json.loads(text)
