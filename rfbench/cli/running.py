"""The command that trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rfbench.cli.app import Overrides, Plugins, console, progress, working
from rfbench.cli.tuning import remark_untuned
from rfbench.errors import InputError

if TYPE_CHECKING:
    from rfbench.planning.plan import Outline, Totals


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


def add_totals(table: Table, totals: Totals) -> None:
    """Rows that say what runs spend."""
    table.add_row("reward queries", f"{totals.reward_queries:,}")
    table.add_row("network forwards, training", f"{totals.training_forwards:,}")
    table.add_row("network backwards, training", f"{totals.training_backwards:,}")
    table.add_row("network forwards, evaluation", f"{totals.evaluation_forwards:,}")


def _print_costs(outline: Outline) -> None:
    """What a run would spend: counted from shapes, and timed where the files are there and that takes seconds."""
    from rfbench.doctor.card_days import run_days
    from rfbench.hub.sources import missing
    from rfbench.inference.timing import measure, worth_timing
    from rfbench.planning.arithmetic import arithmetic
    from rfbench.planning.cards import duration
    from rfbench.planning.chunk_size import settled_here
    from rfbench.planning.plan import command_line_name
    from rfbench.records.protocol import sampler_changes

    outline = settled_here(outline)
    suite, totals, absent = outline.suite, outline.totals(), outline.missing_files()
    plan = None if absent else outline.open()
    counted, speed = arithmetic(outline), None
    table = Table(
        title=escape(f"{outline.label} on {suite.name}, {suite.epochs} epochs"), title_justify="left", show_header=False
    )
    table.add_row("prompts x images per epoch", f"{outline.prompts_per_epoch} x {outline.settings.images_per_prompt}")
    changes = sampler_changes(outline.resolved(), outline.label)
    if changes:
        table.add_row("sampler of the training alone", changes)
    add_totals(table, totals)
    if plan is None:
        table.add_row("estimated time and memory", "not measured: files are missing")
    elif not worth_timing(counted):
        table.add_row("estimated time and memory", "not measured: too slow here; `rfbench doctor` counts the memory")
    else:
        with working(f"timing {outline.label} on {suite.name}"):
            speed = measure(plan)
        took = duration(speed.seconds(totals) / 86_400)
        table.add_row("estimated time", f"{took} of network calls at this machine's speed")
        table.add_row("estimated peak memory", f"{speed.memory_bytes / 2**30:.2f} GiB")
    console.print(table)
    if counted is not None:
        console.print(run_days(outline, counted, speed))
    if absent:
        console.print(missing(absent, command_line_name(suite)), markup=False, highlight=False, soft_wrap=True)
