"""What a cluster wants to be told: options of ``sbatch``, from ``--slurm KEY=VALUE`` and a file of the user's own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfbench.errors import InputError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OURS = {  # what the batch script says itself
    "array": "the tasks are the sweep's runs; --jobs limits how many run at a time",
    "nodes": "a run of a sweep is made on one node; docs/cluster.md shows one run on several",
    "ntasks": "a run is one task; --gpus gives it a process for each GPU",
    "output": "what a run prints goes into a file beside its folder",
    "error": "what a run prints goes into a file beside its folder",
    "job-name": "the name tells rfbench which sweep a job belongs to",
    "signal": "use warning=SECONDS for how long before the time limit a run is told to stop",
    "requeue": "a run that is cut off is always queued again; restarts=N limits how often",
    "no-requeue": "a run that is cut off is always queued again; restarts=0 keeps it from queueing itself",
    "chdir": "a run starts where the sweep was submitted",
    "open-mode": "logs are always appended to",
}
# long options of sbatch that describe what a job needs and whom it is charged to
# fmt: off
KNOWN = (
    "account", "begin", "clusters", "comment", "constraint", "container", "cpus-per-gpu", "cpus-per-task",
    "deadline", "delay-boot", "dependency", "exclude", "exclusive", "export", "gpu-bind", "gpu-freq", "gpus",
    "gpus-per-node", "gpus-per-task", "gres", "gres-flags", "hint", "hold", "licenses", "mail-type", "mail-user",
    "mem", "mem-bind", "mem-per-cpu", "mem-per-gpu", "mincpus", "nice", "nodelist", "oversubscribe", "partition",
    "prefer", "priority", "profile", "propagate", "qos", "reservation", "switches", "threads-per-core", "time",
    "time-min", "tmp", "tres-per-task", "wckey",
)
# fmt: on
GPUS = ("gres", "gpus", "gpus-per-node", "gpus-per-task")


@dataclass(frozen=True)
class Settings:
    """How a sweep asks a cluster for machines.

    Attributes:
        options: of ``sbatch``, by their long names.
        setup: lines of shell that a task runs first, such as ``module load cuda``.
        warning: seconds before the time limit at which a run is told to finish its epoch and stop.
        restarts: how often a run may queue itself again.
    """

    options: dict[str, str] = field(default_factory=dict)
    setup: str = ""
    warning: int = 180
    restarts: int = 20


def user_file() -> Path:
    """The user's defaults: ``~/.config/rfbench/slurm.toml``, with a key and a value on each line."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "rfbench" / "slurm.toml"


def load_settings(given: Sequence[str], file: Path | None = None) -> Settings:
    """The user's file with ``KEY=VALUE`` laid over it; an ``InputError`` names what is unknown, or rfbench's own."""
    path = file or user_file()
    values: dict[str, Any] = {}
    if path.is_file():
        try:
            values = {_key(key): value for key, value in tomllib.loads(path.read_text(encoding="utf-8")).items()}
        except ValueError as error:
            raise InputError(f"{path} is not valid TOML: {error}") from None
        _check(values, str(path))
    over: dict[str, Any] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not (key and separator):
            raise InputError(f"--slurm {text}: expected KEY=VALUE, for example --slurm partition=gpu")
        over[_key(key)] = value
    _check(over, "--slurm")
    return _settings(values | over)


def _key(text: str) -> str:
    return text.strip().removeprefix("--").replace("_", "-")


def _check(values: Mapping[str, Any], where: str) -> None:
    own = ("setup", "warning", "restarts")
    for key, value in values.items():
        if key in OURS:
            raise InputError(f"{where}: {key} is set by rfbench: {OURS[key]}")
        if key not in KNOWN and key not in own:
            raise InputError(f"{where}: sbatch has no option {key!r}{did_you_mean(key, [*KNOWN, *own])}")
        if isinstance(value, dict | list) or ("\n" in str(value) and key != "setup"):
            raise InputError(f"{where}: {key} takes one value on one line, and is {value!r}")


def _settings(values: dict[str, Any]) -> Settings:
    made = Settings(
        options={key: _text(value) for key, value in values.items() if key not in ("setup", "warning", "restarts")},
        setup=str(values.get("setup", Settings.setup)),
        warning=_number(values, "warning", Settings.warning, 60),
        restarts=_number(values, "restarts", Settings.restarts, 0),
    )
    limit = seconds(made.options["time"]) if "time" in made.options else None
    if limit is not None and 2 * made.warning > limit:
        raise InputError(
            f"time={made.options['time']} with warning={made.warning}: a run would be told to stop in the first half "
            "of its time; give it more time, or a shorter warning"
        )
    return made


def _text(value: Any) -> str:
    """A value as ``sbatch`` takes it; that of an option without one, such as ``exclusive = true``, is empty."""
    return "" if value is True or value == "true" else str(value)


def _number(values: Mapping[str, Any], key: str, default: int, least: int) -> int:
    text = str(values.get(key, default))
    if not text.isdecimal() or int(text) < least:
        raise InputError(f"--slurm {key}={text}: expected a whole number from {least}")
    return int(text)


def seconds(limit: str) -> int | None:
    """A time limit as ``sbatch`` reads it: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S; None where there is no limit."""
    if limit.lower() in ("infinite", "unlimited", "0", "-1"):
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit)
    if match is None:
        raise InputError(f"--slurm time={limit}: expected such as 04:00:00 (four hours) or 1-12 (1.5 days)")
    days, *rest = (int(part or 0) for part in match.groups())
    if match[1] is not None or match[4] is not None:
        hours, minutes, left = rest
    else:
        hours, minutes, left = 0, rest[0], rest[1]
    return ((days * 24 + hours) * 60 + minutes) * 60 + left
