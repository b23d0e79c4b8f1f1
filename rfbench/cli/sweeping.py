"""The command that makes many runs, here or on a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rfbench.cli.app import Overrides, Plugins, console, working
from rfbench.cli.running import add_totals
from rfbench.cli.tuning import remark_untuned
from rfbench.errors import InputError, RfbenchError

if TYPE_CHECKING:
    from rfbench.planning.arithmetic import Arithmetic
    from rfbench.planning.plan import Totals
    from rfbench.sweeps.engine import Engine, Outcome
    from rfbench.sweeps.jobs import Job
    from rfbench.sweeps.local import Lane
    from rfbench.sweeps.slurm.cluster import Slurm


MOST_SEEDS = 10_000


class On(str, Enum):
    """Where a sweep runs."""

    local = "local"
    slurm = "slurm"


def sweep(
    suite: Annotated[list[str], typer.Option(help="A suite's name, or the path of a .toml file. Repeatable.")],
    algorithms: Annotated[
        list[str] | None, typer.Argument(help="Algorithms or variants; by default all that each suite lists.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Such as 0-4, or 0,2,7.")] = "0-4",
    out: Annotated[Path, typer.Option(help="Root of the results.")] = Path("results"),
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time; by default one per GPU, or per core; on Slurm, as it likes."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of each run, with a process for each; 0 for a CPU.")] = 1,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="KEY=V,V",
            help="Also run each algorithm with these values of a field of its table; x3 is three times its own. "
            "Example: optimizer.learning_rate=x0.3,x1,x3",
        ),
    ] = None,
    overrides: Overrides = None,
    plugin: Plugins = None,
    on: Annotated[On, typer.Option(help="This machine, or a Slurm cluster that it submits to.")] = On.local,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm",
            metavar="KEY=VALUE",
            help="An option of sbatch, such as partition=gpu or time=04:00:00; also setup, warning and restarts. "
            "Defaults come from ~/.config/rfbench/slurm.toml.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="On a cluster: stay until every run has ended.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print which runs are left and what they would take, and stop.")
    ] = False,
) -> None:
    """Run algorithms x suites x seeds, here or on Slurm. The same command goes on where it was stopped."""
    if on is On.local and (slurm or wait):
        raise InputError(f"{'--slurm' if slurm else '--wait'} is for a cluster: it goes with --on slurm")
    from rfbench.sweeps.jobs import make_jobs

    with working("checking every run"):
        made = make_jobs(
            suite,
            algorithms or [],
            _seeds(seeds),
            out,
            overrides=overrides or [],
            variations=vary or [],
            plugins=plugin or [],
            processes=max(1, gpus),
        )
    from rfbench.suite.loading import load_suite

    for name in suite:
        remark_untuned(load_suite(name, overrides or []), name, algorithms or [], plugin or [])
    if on is On.local:
        _sweep_here(made, jobs, gpus, dry_run=dry_run)
        return
    from rfbench.sweeps.slurm.cluster import Slurm
    from rfbench.sweeps.slurm.settings import load_settings

    cluster = Slurm(load_settings(slurm or []), out, gpus=gpus, at_once=jobs, wait=wait, note=_say)
    for warning in cluster.warnings():
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if dry_run:
        _print_batch(made, cluster)
        return
    outcomes = _follow(made, cluster)
    if not wait:
        _say(f"`rfbench watch {out}` follows them; the same command submits what is neither finished nor queued")
        return
    _conclude(made, outcomes, "")


def _sweep_here(made: list[Job], count: int | None, gpus: int, *, dry_run: bool) -> None:
    from rfbench.sweeps.local import Local, make_lanes
    from rfbench.sweeps.stopwatch import Stopwatch

    lanes = make_lanes(count, gpus)
    if dry_run:
        _print_sweep(made, lanes)
        return
    stopwatch = Stopwatch()
    outcomes = _follow(made, Local(lanes))
    _conclude(made, outcomes, f"; {stopwatch.spent()}")


def _follow(made: list[Job], engine: Engine) -> list[Outcome]:
    from rfbench.sweeps.display import Display

    with Display(made, console) as display:
        return engine.run(made, display)


def _conclude(made: list[Job], outcomes: list[Outcome], spent: str) -> None:
    """The last line; an ``RfbenchError`` where runs failed."""
    from rfbench.sweeps.display import summary

    _say(f"{summary(made, outcomes)}{spent}")
    failed = sum(outcome.error is not None for outcome in outcomes)
    if failed:
        raise RfbenchError(f"{failed} of {len(made)} runs, for the reasons above; the same command tries them again")


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _seeds(text: str) -> list[int]:
    """``0-4`` or ``0,2,7`` as numbers."""
    parts = [re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", part) for part in text.split(",")]
    ranges = [range(int(part[1]), int(part[2] or part[1]) + 1) for part in parts if part]
    if len(ranges) < len(parts) or not all(ranges):
        raise InputError(f"--seeds {text}: expected such as 0-4, or 0,2,7")
    if sum(map(len, ranges)) > MOST_SEEDS:
        raise InputError(f"--seeds {text}: these are more than {MOST_SEEDS} seeds, the most that a sweep takes")
    return [seed for these in ranges for seed in these]


def _print_sweep(jobs: Sequence[Job], lanes: Sequence[Lane]) -> None:
    """How far each run is, and what the unfinished ones would spend."""
    from rfbench.sweeps.costs import arithmetics, estimated_hours, unspent
    from rfbench.sweeps.display import render
    from rfbench.sweeps.engine import Outcome

    finished = {job: Outcome(job, None, skipped=True) for job in jobs if job.finished}
    console.print(render(jobs, list(finished.values())))
    left = {job: unspent(job) for job in jobs if job not in finished}
    if not left:
        return
    table = Table(title="What is left", title_justify="left", show_header=False)
    add_totals(table, reduce(add, left.values()))
    counted, threads = arithmetics(left), lanes[0].threads
    hours = estimated_hours(left, counted, lanes)
    table.add_row("runs at a time", f"{len(lanes)}, on {threads} thread{'s' if threads > 1 else ''} each")
    estimate = (
        "not measured: too slow here"
        if hours is None
        else f"{hours:.1f} hours of network calls at this machine's speed"
    )
    table.add_row("estimated time", estimate)
    console.print(table)
    _print_card_days(left, counted)


def _print_card_days(left: Mapping[Job, Totals], counted: Mapping[str, Arithmetic | None]) -> None:
    """The time of what is left on the cards that people have, where its networks fill one."""
    from rfbench.doctor.card_days import card_days
    from rfbench.sweeps.costs import left_flops

    flops = left_flops(left, counted)
    if flops is not None:
        console.print(card_days("what is left", flops, [f"Network calls alone: {flops:.3g} operations."]))


def _print_batch(jobs: Sequence[Job], cluster: Slurm) -> None:
    """What would be submitted: the batch script, and the run of each task."""
    from rfbench.sweeps.costs import arithmetics, unspent

    left = {job: unspent(job) for job in jobs if not job.finished}
    _say(f"{len(jobs) - len(left)} of {len(jobs)} runs finished")
    if not left:
        return
    script, submission = cluster.preview(jobs)
    console.out(script, highlight=False)
    table = Table(title="Tasks", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("task", "seed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("suite", "variant"):
        table.add_column(heading, overflow="fold")
    for index, task in enumerate(submission.tasks):
        table.add_row(str(index), str(task.seed), escape(task.suite), escape(task.variant))
    console.print(table)
    spent = Table(title="What they would spend", title_justify="left", show_header=False)
    add_totals(spent, reduce(add, left.values()))
    console.print(spent)
    _print_card_days(left, arithmetics(left))
