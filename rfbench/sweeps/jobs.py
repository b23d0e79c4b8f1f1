"""The runs of a sweep: suites x algorithms x variations x seeds, each checked before the first begins."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rfbench.errors import InputError
from rfbench.planning.plan import Plan, make_plan
from rfbench.records.format import RunRecord
from rfbench.running.folder import RunFolder, run_path
from rfbench.running.resume import check_same_experiment
from rfbench.suite.loading import load_suite
from rfbench.suite.suite import Suite


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        arguments: of the ``rfbench`` command that makes it.
        folder: where it lives; what it prints goes into a file beside it.
    """

    plan: Plan = field(compare=False, repr=False)
    arguments: tuple[str, ...]
    folder: Path

    @property
    def suite(self) -> str:
        return self.plan.suite.name

    @property
    def label(self) -> str:
        return self.plan.label

    @property
    def seed(self) -> int:
        return self.plan.seed

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    def __str__(self) -> str:
        return f"{self.suite} {self.label} seed {self.seed}"

    def record(self) -> RunRecord | None:
        """The run's ``run.json``; None before it starts, and where it is damaged: the run itself then says so."""
        with suppress(InputError):
            return RunFolder(self.folder, writer=False).read_run()
        return None

    @property
    def finished(self) -> bool:
        record = self.record()
        return record is not None and record.status == "finished"


def make_jobs(
    suites: Sequence[str],
    labels: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    overrides: Sequence[str] = (),
    variations: Sequence[str] = (),
    plugins: Sequence[Path] = (),
) -> list[Job]:
    """Every run of the sweep, seed by seed: one that is cut short then has the same seeds for every algorithm.

    Args:
        labels: tables of the suites, or algorithms; none stands for all tables of each suite.
        overrides: ``key=value`` for every run.
        variations: ``KEY=V,V``: the values that a field of each algorithm's table takes in turn. ``x3`` is three times
            what the table says.
    """
    for what, given in (("--suite", suites), ("--seeds", seeds)):
        if len(set(given)) < len(given):
            raise InputError(f"{what} names something twice: {', '.join(map(str, given))}")
    runs = [run for name in suites for run in _runs(name, labels, overrides, variations)]
    options = [part for file in plugins for part in ("--plugin", str(file))]
    jobs = []
    for seed, (name, plan, sets) in itertools.product(seeds, runs):
        folder = run_path(out, plan.suite.name, plan.label, seed)
        arguments = ["run", plan.label, "--suite", name, "--seed", str(seed), "--out", str(out), "--resume", *options]
        arguments += [part for text in sets for part in ("--set", text)]
        job = Job(replace(plan, seed=seed), tuple(arguments), folder)
        earlier = job.record()
        if earlier is not None and earlier.status == "finished":
            check_same_experiment(earlier, plan.planned(earlier.processes), folder)
        jobs.append(job)
    return jobs


def _runs(
    name: str, labels: Sequence[str], overrides: Sequence[str], variations: Sequence[str]
) -> Iterator[tuple[str, Plan, list[str]]]:
    """The suite, the checked plan and the overrides of every run on one suite, whatever its seed."""
    suite = load_suite(name, overrides)
    if not (labels or suite.algorithms):
        raise InputError(f"the suite {name} has no [algorithms] tables: name the algorithms to run")
    for label in labels or suite.algorithms:
        for variant, changes in _variants(suite, label, variations):
            sets = [*overrides, *changes]
            yield name, make_plan(load_suite(name, sets), variant, seed=0), sets


def _variants(suite: Suite, label: str, variations: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each combination of the variations: a name for the table, and the overrides that make it; first, unvaried."""
    if not variations:
        yield label, []
        return
    table = suite.settings_for(label).model_dump(mode="json")
    for values in itertools.product(*(_values(table, label, variation) for variation in variations)):
        changed = [(key, text, value) for key, text, value in values if text != "x1"]
        variant = "-".join([label, *(_name(key, text) for key, text, _ in changed)])
        if not changed:
            yield label, []
            continue
        start = f"algorithms.{variant}"
        like = [f"{start}.like={label}"] if label in suite.algorithms else [f"{start}.algorithm={label}"]
        yield variant, like + [f"{start}.{key}={value}" for key, _, value in changed]


def _name(key: str, text: str) -> str:
    """What a change adds to a table's name, of characters that a TOML key takes: a dot would divide it."""
    return re.sub(r"[^\w-]", "_", f"{key.rpartition('.')[2]}-{text}")


def _values(table: dict[str, Any], label: str, variation: str) -> list[tuple[str, str, str]]:
    """``KEY=V,V`` as (key, value as written, value)."""
    key, separator, texts = variation.partition("=")
    if not (separator and key and texts):
        raise InputError(f"--vary {variation}: expected KEY=V,V, for example --vary optimizer.learning_rate=x0.3,x1,x3")
    return [(key, text, _value(table, label, key, text)) for text in texts.split(",")]


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
