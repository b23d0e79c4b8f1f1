"""What a person sees of a sweep: a table that follows it on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from rfbench.sweeps.engine import Outcome
from rfbench.sweeps.jobs import Job


class Display:
    """Follows ``jobs``; a context, called with the outcomes so far. A failure is told at once, above the table."""

    def __init__(self, jobs: Sequence[Job], console: Console) -> None:
        self._jobs, self._console = list(jobs), console
        self._live = (
            Live(console=console, auto_refresh=False) if console.is_interactive and console.file.isatty() else None
        )
        self._told: set[Job] = set()

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, outcomes: list[Outcome]) -> None:
        new = [outcome for outcome in outcomes if outcome.job not in self._told]
        self._told.update(outcome.job for outcome in new)
        for outcome in new:
            if outcome.error or self._live is None:
                self._console.print(_line(outcome), markup=False, highlight=False, soft_wrap=True)
        if self._live is not None:
            self._live.update(render(self._jobs, outcomes), refresh=True)


def render(jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> RenderableType:
    """A row per suite and algorithm, a column per seed: how far each run is."""
    ended = {outcome.job: outcome for outcome in outcomes}
    seeds = sorted({job.seed for job in jobs})
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("suite", "algorithm", *(f"seed {seed}" for seed in seeds)):
        table.add_column(heading, justify="right" if heading.startswith("seed") else "left", no_wrap=True)
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for job in jobs:
        rows.setdefault((job.suite, job.label), {})[job.seed] = _cell(job, ended.get(job))
    for (suite, label), cells in rows.items():
        table.add_row(escape(suite), escape(label), *(cells.get(seed, "") for seed in seeds))
    return Group(table, summary(jobs, outcomes))


def summary(jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> str:
    """How many runs are finished, and how many failed."""
    failed = sum(outcome.error is not None for outcome in outcomes)
    skipped = sum(outcome.skipped for outcome in outcomes)
    text = f"{len(outcomes) - failed} of {len(jobs)} runs finished"
    if skipped:
        text += f" ({skipped} of them before)"
    return text + (f", {failed} failed" if failed else "")


def _line(outcome: Outcome) -> str:
    """How a run ended; of one that failed, why, and the file with what it printed."""
    if outcome.error:
        return f"{outcome.job} failed: {outcome.error} ({outcome.job.log})"
    return f"{outcome.job} {'was finished already' if outcome.skipped else 'finished'}"


def _cell(job: Job, outcome: Outcome | None) -> str:
    if outcome is not None:
        return "[red]failed[/]" if outcome.error else "[green]done[/]"
    record = job.record()
    if record is None:
        return "[dim]·[/]"
    share = f"{100 * record.epoch // record.epochs} %"
    return f"[cyan]{share}[/]" if record.status == "running" else f"[yellow]{share}[/]"
