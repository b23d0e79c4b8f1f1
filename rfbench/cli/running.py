"""Commands that train."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rfbench.cli.app import Overrides, Plugins, console, progress, working
from rfbench.cli.tuning import remark_untuned
from rfbench.errors import InputError, RfbenchError

if TYPE_CHECKING:
    from rfbench.planning.plan import Outline, Totals
    from rfbench.sweeps import Job, Lane

MOST_SEEDS = 10_000


def run(
    algorithm: Annotated[str, typer.Argument(help="An algorithm, or a variant that the suite names.")],
    suite: Annotated[str, typer.Option(help="A suite's name, or the path of a .toml file.")],
    seed: Annotated[int, typer.Option(min=0, help="Key of the run's prompts and noise.")] = 0,
    out: Annotated[Path, typer.Option(help="Root of the results.")] = Path("results"),
    overrides: Overrides = None,
    plugin: Plugins = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over, removing what is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what the run would spend, and stop.")] = False,
) -> None:
    """Finetune with one algorithm on one suite, in OUT/SUITE/ALGORITHM/seed-N."""
    if resume and overwrite:
        raise InputError("--resume goes on with a run and --overwrite starts over: give one of them")
    from rfbench.suite.loading import load_suite

    loaded = load_suite(suite, overrides or [])
    from rfbench.planning.plan import make_outline

    outline = make_outline(loaded, algorithm, seed)
    remark_untuned(loaded, suite, [algorithm], plugin or [])
    if dry_run:
        _print_costs(outline)
        return
    from rfbench.running.trainer import train

    train(outline.open(), out, progress(live=True), resume=resume, overwrite=overwrite)


def sweep(
    suite: Annotated[list[str], typer.Option(help="A suite's name, or the path of a .toml file. Repeatable.")],
    algorithms: Annotated[
        list[str] | None, typer.Argument(help="Algorithms or variants; by default all that each suite lists.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Such as 0-4, or 0,2,7.")] = "0-4",
    out: Annotated[Path, typer.Option(help="Root of the results.")] = Path("results"),
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; by default one per GPU, or per core without one.")
    ] = None,
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print which runs are left and what they would spend, and stop.")
    ] = False,
) -> None:
    """Run algorithms x suites x seeds, one process per core or GPU. The same command goes on where it was stopped."""
    from rfbench import sweeps as sweeping

    with working("checking every run"):
        made = sweeping.make_jobs(
            suite,
            algorithms or [],
            _seeds(seeds),
            out,
            overrides=overrides or [],
            variations=vary or [],
            plugins=plugin or [],
        )
    from rfbench.suite.loading import load_suite

    for name in suite:
        remark_untuned(load_suite(name, overrides or []), name, algorithms or [], plugin or [])
    lanes = sweeping.make_lanes(jobs)
    if dry_run:
        _print_sweep(made, lanes)
        return
    stopwatch = sweeping.Stopwatch()
    with sweeping.Display(made, console) as display:
        outcomes = sweeping.run_jobs(made, lanes, display)
    console.print(f"{sweeping.summary(made, outcomes)}; {stopwatch.spent()}", highlight=False, soft_wrap=True)
    failed = sum(outcome.error is not None for outcome in outcomes)
    if failed:
        raise RfbenchError(f"{failed} of {len(made)} runs, for the reasons above; the same command tries them again")


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
    from rfbench import sweeps as sweeping

    finished = {job: sweeping.Outcome(job, None, skipped=True) for job in jobs if job.finished}
    console.print(sweeping.render(jobs, list(finished.values())))
    left = {job: sweeping.unspent(job) for job in jobs if job not in finished}
    if not left:
        return
    table = Table(title="What is left", title_justify="left", show_header=False)
    _add_totals(table, reduce(add, left.values()))
    hours, threads = sweeping.estimated_hours(left, lanes), lanes[0].threads
    table.add_row("runs at a time", f"{len(lanes)}, on {threads} thread{'s' if threads > 1 else ''} each")
    table.add_row("estimated time", f"{hours:.1f} hours of network calls at this machine's speed")
    console.print(table)


def _add_totals(table: Table, totals: Totals) -> None:
    table.add_row("reward queries", f"{totals.reward_queries:,}")
    table.add_row("UNet forwards, training", f"{totals.training_forwards:,}")
    table.add_row("UNet backwards, training", f"{totals.training_backwards:,}")
    table.add_row("UNet forwards, evaluation", f"{totals.evaluation_forwards:,}")


def _print_costs(outline: Outline) -> None:
    """What a run would spend: counted, and timed where the files are there."""
    from rfbench.hub.sources import missing
    from rfbench.planning.plan import command_line_name

    suite, totals, absent = outline.suite, outline.totals(), outline.missing_files()
    plan = None if absent else outline.open()
    table = Table(
        title=escape(f"{outline.label} on {suite.name}, {suite.epochs} epochs"), title_justify="left", show_header=False
    )
    table.add_row("prompts x images per epoch", f"{outline.prompts_per_epoch} x {outline.settings.images_per_prompt}")
    _add_totals(table, totals)
    if plan is None:
        table.add_row("estimated time and memory", "not measured: files are missing")
    else:
        from rfbench.running.timing import measure

        with working(f"timing {outline.label} on {suite.name}"):
            speed = measure(plan)
        minutes = speed.seconds(totals) / 60
        table.add_row("estimated time", f"{minutes:.1f} min of network calls at this machine's speed")
        table.add_row("estimated peak memory", f"{speed.memory_bytes / 2**30:.2f} GiB")
    console.print(table)
    if absent:
        console.print(missing(absent, command_line_name(suite)), markup=False, highlight=False, soft_wrap=True)
