"""`rfbench watch`: queued, running and finished runs in the terminal, refreshed as folders and queue change."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import polars as pl
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rfbench.errors import InputError, RfbenchError
from rfbench.records.format import RunRecord
from rfbench.records.pace import EPOCH_SECONDS, duration, seconds_left
from rfbench.records.submission import TaskState
from rfbench.report.analysis.statistics import curve_statistics
from rfbench.report.frames import decimals, order
from rfbench.report.load import Runs, find_run_folders, load

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 16
ROOMY = 80  # columns that hold names, status and curve in one line
SILENT_AFTER = 5  # epochs of the run's own pace, but at least a minute
QUEUE_EVERY = 15.0  # seconds between two questions to the cluster
STYLES = {"running": "bold cyan", "queued": "cyan", "finished": "green", "failed": "bold red", "interrupted": "yellow"}
STATUS_ORDER = ["running", "queued", "interrupted", "failed", "finished"]

Queue = Callable[[], list[TaskState]]


@dataclass(frozen=True)
class RunStatus:
    """What is shown of one run. Rewards are evaluations of the training reward on the first seen prompt set."""

    suite: str
    algorithm: str
    seed: int
    status: str
    epoch: int
    epochs: int | None
    rewards: tuple[float, ...]
    drawdown: float | None
    seconds_left: float | None
    silent_seconds: float | None
    error: str | None
    where: str = ""  # host, the cluster's job and its restarts, as far as they are known


class Watcher:
    """Reads run folders again and again, each only when one of its files has changed, and asks a cluster's queue.

    Args:
        folders: with runs, at any depth; those that are not there yet are waited for.
        queue: what the cluster says of the tasks of sweeps in these folders; None without a cluster.
    """

    def __init__(self, folders: Sequence[Path | str], queue: Queue | None = None) -> None:
        self._folders = [Path(folder) for folder in folders]
        for folder in self._folders:
            if folder.exists() and not folder.is_dir():
                raise InputError(f"{folder} is not a folder; give the folder that holds your runs, such as results/")
        self._known: dict[Path, tuple[tuple[int, ...], RunStatus | None]] = {}
        self._queue, self._asked = queue, -QUEUE_EVERY
        self._tasks: list[TaskState] = []
        self.trouble = ""  # why the queue is not known, if so

    def missing(self) -> list[Path]:
        """The folders that are not there yet."""
        return [folder for folder in self._folders if not folder.is_dir()]

    def look(self, now: datetime | None = None) -> list[RunStatus]:
        """The state of every readable run and of every task that the cluster knows: running ones first."""
        found = self._look_at_folders(now or datetime.now(timezone.utc))
        for folder, task in self._tasks_by_folder().items():
            known = found.get(folder)
            found[folder] = _queued(task) if known is None else _with_task(known, task)
        return sorted(found.values(), key=lambda run: (_rank(run.status), run.suite, run.algorithm, run.seed))

    def _look_at_folders(self, moment: datetime) -> dict[Path, RunStatus]:
        found = {}
        for folder in find_run_folders([folder for folder in self._folders if folder.is_dir()]):
            stamp = _stamp(folder)
            known = self._known.get(folder)
            if known is None or known[0] != stamp or (known[1] is not None and known[1].status == "running"):
                known = (stamp, _status(load([folder]), moment))
                self._known[folder] = known
            if known[1] is not None:
                found[folder.resolve()] = known[1]
        return found

    def _tasks_by_folder(self) -> dict[Path, TaskState]:
        """The latest task of each watched run's folder: one that is queued or running, if there is one."""
        if self._queue is not None and time.monotonic() - self._asked >= QUEUE_EVERY:
            self._asked = time.monotonic()
            try:
                self._tasks, self.trouble = self._queue(), ""
            except RfbenchError as error:
                self.trouble = str(error)
        tops = [folder.resolve() for folder in self._folders]
        tasks = {}
        for state in sorted(self._tasks, key=lambda state: state.active):
            folder = Path(state.task.folder)
            if any(folder.is_relative_to(top) for top in tops):
                tasks[folder] = state
        return tasks


def watch(folders: Sequence[Path | str], console: Console, queue: Queue | None = None, every: float = 2.0) -> None:
    """Show the runs until Ctrl-C, waiting for folders to appear; once, where the output is not a terminal."""
    watcher = Watcher(folders, queue)
    if not (console.is_interactive and console.file.isatty()):  # colour can be forced into a file, which is no screen
        console.print(_screen(watcher, console.width, limit=None))
        return
    with Live(console=console, auto_refresh=False, screen=True) as live:
        try:
            while True:
                live.update(_screen(watcher, console.width, limit=max(1, console.height - 6)), refresh=True)
                time.sleep(every)
        except KeyboardInterrupt:
            pass


def _screen(watcher: Watcher, width: int, limit: int | None) -> RenderableType:
    """The runs, what is waited for, and what is wrong with the queue."""
    shown = [_render_statuses(watcher.look(), width, limit)]
    shown += [Text(f" {folder} is not there yet", style="dim") for folder in watcher.missing()]
    if watcher.trouble:
        shown.append(Text(f" the queue is not known: {watcher.trouble}", style="yellow"))
    return Group(*shown)


def _render_statuses(runs: list[RunStatus], width: int, limit: int | None) -> RenderableType:
    """A row per run, at most `limit` of them; without the curve and its drop where they would break the names."""
    if not runs:
        return Text("no runs yet; start one with `rfbench run prdp --suite tiny-shapes`")
    placed = any(run.where for run in runs)
    roomy = width >= ROOMY
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for heading in ("suite", "variant"):
        table.add_column(heading, overflow="fold")
    table.add_column("seed", justify="right")
    table.add_column("status", no_wrap=not placed, overflow="fold")
    for heading in ("epoch", "reward"):
        table.add_column(heading, justify="right", no_wrap=True)
    if roomy:
        table.add_column("so far", no_wrap=True)
        table.add_column("drop", justify="right", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True)
    if placed:
        table.add_column("where", overflow="fold")
    for run in runs[:limit]:
        table.add_row(*_cells(run, roomy), *([escape(run.where)] if placed else []))
    counts = ", ".join(
        f"{sum(r.status == s for r in runs)} {s}" for s in STATUS_ORDER if any(r.status == s for r in runs)
    )
    hidden = f"; {len(runs) - limit} not shown" if limit is not None and len(runs) > limit else ""
    meaning = "reward: the training reward's last evaluation, on seen prompts"
    return Group(table, Text(f" {counts}{hidden}; {meaning}", style="dim"))


def _cells(run: RunStatus, roomy: bool) -> list[str]:
    status = f"[{STYLES.get(run.status, 'default')}]{escape(run.status)}[/]"
    if run.silent_seconds is not None:
        status += f" [yellow](silent for {duration(run.silent_seconds)})[/]"
    if run.error:
        status += f" {escape(run.error[:60])}"
    digits = decimals([pl.Series(run.rewards)]) if run.rewards else 0
    curve = [sparkline(run.rewards), "–" if run.drawdown is None else f"{run.drawdown:.{digits}f}"]
    return [
        escape(run.suite),
        escape(run.algorithm),
        str(run.seed),
        status,
        f"{run.epoch}/{'?' if run.epochs is None else run.epochs}",
        f"{run.rewards[-1]:.{digits}f}" if run.rewards else "–",
        *(curve if roomy else []),
        "" if run.seconds_left is None else duration(run.seconds_left),
    ]


def sparkline(values: Sequence[float]) -> str:
    """The values as blocks from their lowest to their highest, the latest `SPARK_WIDTH` of them."""
    shown = list(values)[-SPARK_WIDTH:]
    if not shown:
        return ""
    low, span = min(shown), max(shown) - min(shown)
    return "".join(BLOCKS[0 if span == 0 else round((v - low) / span * (len(BLOCKS) - 1))] for v in shown)


def _status(runs: Runs, now: datetime) -> RunStatus | None:
    if runs.runs.is_empty():
        return None
    row = runs.runs.row(0, named=True)
    curve = order(runs.evals.filter(pl.col("role") == "training"), pl.col("epoch"))
    if curve.height:
        curve = curve.filter(measure=curve["measure"][0], evaluation_set=curve["evaluation_set"][0])
    columns = (curve[c].cast(pl.Float64).to_numpy() for c in ("epoch", "reward_queries", "mean", "standard_error"))
    drawdown = curve_statistics(*columns)["drawdown"] if curve.height else None
    epoch = row["epoch"] or 0
    seconds = _seconds_of_epochs(runs.metrics)
    pace = seconds_left(seconds, 1)
    running = row["status"] == "running"
    left = seconds_left(seconds, row["epochs"] - epoch) if running and row["epochs"] is not None else None
    silent = _seconds_since(row["updated_at"], now) if running else None
    patience = max(60.0, SILENT_AFTER * (pace or 0.0))
    return RunStatus(
        suite=row["suite"],
        algorithm=row["variant"],
        seed=row["seed"],
        status=row["status"],
        epoch=epoch,
        epochs=row["epochs"],
        rewards=tuple(curve["mean"]),
        drawdown=drawdown,
        seconds_left=left,
        silent_seconds=silent if silent is not None and silent > patience else None,
        error=row["error"],
        where=_place(next(iter(runs.records.values()))),
    )


def _seconds_of_epochs(metrics: pl.DataFrame) -> list[float]:
    phases = [column for column in EPOCH_SECONDS if column in metrics.columns]
    return metrics.select(pl.sum_horizontal(phases)).to_series().to_list() if phases else []


def _place(record: RunRecord) -> str:
    """Host, job and restarts of a run on a cluster; nothing of one that no cluster runs."""
    if not record.job:
        return ""
    return f"{record.host}, job {record.job}" + (f", restart {record.restart}" if record.restart else "")


def _with_task(run: RunStatus, task: TaskState) -> RunStatus:
    """A run as its folder and the cluster together have it: the folder cannot know that its process was killed."""
    if run.status == "finished" or (task.active and task.state != "PENDING" and run.status == "running"):
        return run
    if task.active:
        waits = task.state == "PENDING"
        return replace(
            run,
            status="queued" if waits else "running",
            error=" ".join(filter(None, ("again", _waiting(task)))) if waits else None,
            where=run.where or f"job {task.job}",
            seconds_left=None,
            silent_seconds=None,
        )
    if run.status == "running":
        gone = f"job {task.job} is over: {task.state.lower()}"
        return replace(run, status="interrupted", error=gone, silent_seconds=None, seconds_left=None)
    return run


def _queued(task: TaskState) -> RunStatus:
    """A task whose run has no folder yet."""
    status = "failed" if not task.active else "queued" if task.state == "PENDING" else "running"
    ended = f"{task.state.lower()} before its run began: {task.reason}"
    return RunStatus(
        suite=task.task.suite,
        algorithm=task.task.variant,
        seed=task.task.seed,
        status=status,
        epoch=0,
        epochs=None,
        rewards=(),
        drawdown=None,
        seconds_left=None,
        silent_seconds=None,
        error=_waiting(task) if task.active else ended,
        where=(f"{task.node}, " if task.node else "") + f"job {task.job}",
    )


def _waiting(task: TaskState) -> str | None:
    """Why a task waits, in Slurm's word."""
    return f"({task.reason})" if task.state == "PENDING" and task.reason not in ("", "None") else None


def _seconds_since(moment: str | None, now: datetime) -> float | None:
    try:
        then = datetime.fromisoformat((moment or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return (now - then).total_seconds() if then.tzinfo else None


def _stamp(folder: Path) -> tuple[int, ...]:
    """Changes whenever one of the run's records does."""
    stamp: list[int] = []
    for name in ("run.json", "evals.jsonl", "metrics.jsonl"):
        try:
            found = (folder / name).stat()
            stamp += [found.st_mtime_ns, found.st_size]
        except OSError:
            stamp += [0, 0]
    return tuple(stamp)


def _rank(status: str) -> int:
    return STATUS_ORDER.index(status) if status in STATUS_ORDER else len(STATUS_ORDER)
