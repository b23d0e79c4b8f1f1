"""The runs of a sweep: suites x algorithms x variations x seeds, each checked before the first begins."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from rfbench.errors import InputError
from rfbench.planning.plan import Plan, make_outline
from rfbench.records.format import RunRecord
from rfbench.running.folder import RunFolder, run_path
from rfbench.running.resume import check_same_experiment
from rfbench.suite.loading import load_suite
from rfbench.sweeps.variations import variants


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        arguments: of the ``rfbench`` command that makes it.
        folder: where it lives; what it prints goes into a file beside it.
        processes: that make it together, one for each of its GPUs.
    """

    plan: Plan = field(compare=False, repr=False)
    arguments: tuple[str, ...]
    folder: Path
    processes: int = 1

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

    def command(self) -> list[str]:
        """What makes the run on one machine; several processes through torchrun."""
        if self.processes == 1:
            return [sys.executable, "-m", "rfbench", *self.arguments]
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes), "-m", "rfbench"]
        return [sys.executable, "-m", *launcher, *self.arguments]

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
    processes: int = 1,
) -> list[Job]:
    """Every run of the sweep, seed by seed: one that is cut short then has the same seeds for every algorithm.

    Args:
        labels: tables of the suites, or algorithms; none stands for all tables of each suite.
        overrides: ``key=value`` for every run.
        variations: ``KEY=V,V``: the values that a field of each algorithm's table takes in turn. ``x3`` is three times
            what the table says.
        processes: of each run.
    """
    if processes > 1:  # a resume on another number is then refused at once
        overrides = [*overrides, f"compute.processes={processes}"]
    named = (("--suite", suites), ("the list of algorithms", labels), ("--seeds", seeds))
    for what, given in named:
        if len(set(given)) < len(given):
            raise InputError(f"{what} names something twice: {', '.join(map(str, given))}")
    runs = [run for name in suites for run in _runs(name, labels, overrides, variations)]
    _check_folders(runs)
    options = [part for file in plugins for part in ("--plugin", str(file))]
    jobs = []
    for seed, (name, plan, sets) in itertools.product(seeds, runs):
        folder = run_path(out, plan.suite.name, plan.label, seed)
        arguments = ["run", plan.label, "--suite", name, "--seed", str(seed), "--out", str(out), "--resume", *options]
        arguments += [part for text in sets for part in ("--set", text)]
        job = Job(replace(plan, seed=seed), tuple(arguments), folder, processes)
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
    plan: Plan | None = None
    for label in labels or suite.algorithms:
        made: dict[str, str] = {}
        for variant, changes in variants(suite, label, variations):
            sets = [*overrides, *changes]
            plan = make_outline(load_suite(name, sets), variant, seed=0).open(beside=plan)  # tables alone differ
            settings = repr((plan.settings.model_copy(update={"algorithm": None, "config": {}}), plan.algorithm.config))
            if settings in made:
                raise InputError(f"{made[settings]} and {variant} are one run under two names; vary other values")
            made[settings] = variant
            yield name, plan, sets


def _check_folders(runs: Sequence[tuple[str, Plan, list[str]]]) -> None:
    """An ``InputError`` where two runs would share a folder."""
    taken: dict[tuple[str, str], str] = {}
    for name, plan, _ in runs:
        place = (plan.suite.name, plan.label)
        if place in taken:
            raise InputError(f"{taken[place]} and {name} both make {'/'.join(place)}: two runs would share a folder")
        taken[place] = name
