"""The command that chooses settings, and the remark that asks for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rfbench.cli.app import Overrides, Plugins, console, errors, working
from rfbench.errors import InputError, RfbenchError

if TYPE_CHECKING:
    from rfbench.suite.suite import Suite
    from rfbench.sweeps.tuning import Search


def tune(
    suite: Annotated[str, typer.Argument(help="A suite's name, or the path of a .toml file.")],
    algorithm: Annotated[str, typer.Option(help="An algorithm, or a variant that the suite names.")],
    trials: Annotated[int, typer.Option(min=1, help="Runs of the search: as many as every algorithm compared gets.")],
    learning_rates: Annotated[
        str, typer.Option(metavar="LOW,HIGH", help="Range of the learning rate, on a log scale.")
    ] = "1e-5,1e-3",
    out: Annotated[Path, typer.Option(help="Root of the trials' folders.")] = Path("tuning"),
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; by default one per GPU, or per core without one.")
    ] = None,
    overrides: Overrides = None,
    plugin: Plugins = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the trials and how far they are, and stop.")
    ] = False,
) -> None:
    """Try an algorithm's settings on a suite: runs over the ranges that its Config declares, judged on unseen prompts
    that serve tuning alone. The same command goes on where it was stopped."""
    from rfbench.suite.loading import load_suite
    from rfbench.sweeps import tuning
    from rfbench.sweeps.display import Display
    from rfbench.sweeps.local import Local, make_lanes

    rates = _range(learning_rates)
    with working("checking every trial"):
        search = tuning.make_search(
            suite,
            algorithm,
            trials,
            out,
            learning_rates=rates,
            overrides=overrides or [],
            plugins=plugin or [],
        )
    made = [trial.job for trial in search.trials]
    if dry_run:
        _print(search, algorithm)
        return
    with Display(made, console) as display:
        outcomes = Local(make_lanes(jobs)).run(made, display)
    _print(search, algorithm)
    for outcome in outcomes:
        if outcome.error:
            errors.print(f"[bold red]failed:[/] {escape(f'{outcome.job.label}: {outcome.error}')}", soft_wrap=True)
    best = search.best()
    if best is None:
        raise RfbenchError("no trial finished, for the reasons above; the same command tries them again")
    console.print("\nThe best of them, for the suite's file:\n")
    lines = tuning.suite_lines(algorithm, load_suite(suite, overrides or []), best.settings)
    console.print(lines, markup=False, highlight=False, soft_wrap=True)


def _range(text: str) -> tuple[float, float]:
    """``LOW,HIGH`` as numbers."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--learning-rates {text}: expected LOW,HIGH, for example 1e-5,1e-3") from None
    if not 0 < low < high < math.inf:
        raise InputError(f"--learning-rates {text}: expected 0 < {low:g} < {high:g}, and both finite")
    return low, high


def _print(search: Search, algorithm: str) -> None:
    """The trials, the best first, and what a fair comparison with them takes."""
    from rfbench.sweeps.tuning import SEED, SET

    names = [place.rpartition(".")[2] for place in search.ranges]
    table = Table("trial", *names, "gain", title=f"trials of {algorithm}", title_justify="left")
    gains = [(trial.gain(), trial) for trial in search.trials]
    for gain, trial in sorted(gains, key=lambda pair: -float("inf") if pair[0] is None else pair[0], reverse=True):
        record = trial.job.record()
        state = "not begun" if record is None else record.status
        values = (f"{value:g}" for value in trial.settings.values())
        table.add_row(trial.job.label, *values, state if gain is None else f"{gain:+.3f}")
    console.print(table)
    console.print(
        f"gain: training reward on the {len(search.prompts)} prompts of the evaluation set '{SET}', mean over the "
        f"evaluations after the start, above the start's; {search.shared_prompts} of these prompts are also in the "
        f"suite's own unseen set. Training seed {SEED}.\n"
        f"{len(search.trials)} trials of {len(names)} free settings: {', '.join(names)}. An equal search of another "
        "algorithm has as many of both.",
        highlight=False,
        soft_wrap=True,
    )


def remark_untuned(suite: Suite, name: str, labels: Sequence[str], plugins: Sequence[Path]) -> None:
    """Says loudly which of ``labels`` the suite has no settings for, and how to find some."""
    unlisted = [label for label in labels if suite.algorithms and label not in suite.algorithms]
    options = "".join(f" --plugin {file}" for file in plugins)
    for label in unlisted:
        errors.print(
            f"[bold yellow]untuned:[/] {escape(name)} has no settings for {escape(label)}, so it runs with defaults "
            "against algorithms that were tuned. For a fair comparison, first\n"
            f"    rfbench tune {escape(name)} --algorithm {escape(label)} --trials 8{escape(options)}",
            highlight=False,
            soft_wrap=True,
        )
