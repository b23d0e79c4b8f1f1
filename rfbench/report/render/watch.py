"""`rfbench watch`: running and finished runs in the terminal, refreshed as their folders change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import polars as pl
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rfbench.records.pace import EPOCH_SECONDS, duration, seconds_left
from rfbench.report.analysis.statistics import curve_statistics
from rfbench.report.frames import decimals, order
from rfbench.report.load import Runs, find_run_folders, load

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 16
SILENT_AFTER = 5  # epochs of the run's own pace, but at least a minute
STYLES = {"running": "bold cyan", "finished": "green", "failed": "bold red", "interrupted": "yellow"}
STATUS_ORDER = ["running", "interrupted", "failed", "finished"]


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


class Watcher:
    """Reads run folders again and again, each only when one of its files has changed."""

    def __init__(self, folders: Sequence[Path | str]) -> None:
        self._folders = [Path(folder) for folder in folders]
        self._known: dict[Path, tuple[tuple[int, ...], RunStatus | None]] = {}

    def look(self, now: datetime | None = None) -> list[RunStatus]:
        """The state of every readable run: running ones first."""
        moment = now or datetime.now(timezone.utc)
        found = []
        for folder in find_run_folders(self._folders):
            stamp = _stamp(folder)
            known = self._known.get(folder)
            if known is None or known[0] != stamp or (known[1] is not None and known[1].status == "running"):
                known = (stamp, _status(load([folder]), moment))
                self._known[folder] = known
            if known[1] is not None:
                found.append(known[1])
        return sorted(found, key=lambda run: (_rank(run.status), run.suite, run.algorithm, run.seed))


def watch(folders: Sequence[Path | str], console: Console, every: float = 2.0) -> None:
    """Show the runs until Ctrl-C; once, where the output is not a terminal."""
    watcher = Watcher(folders)
    if not (console.is_interactive and console.file.isatty()):  # colour can be forced into a file, which is no screen
        console.print(render_statuses(watcher.look(), limit=None))
        return
    with Live(console=console, auto_refresh=False, screen=True) as live:
        try:
            while True:
                absent = [folder for folder in map(Path, folders) if not folder.is_dir()]
                if absent:
                    live.update(Text(f"waiting for {absent[0]}, which is not there yet"), refresh=True)
                else:
                    live.update(render_statuses(watcher.look(), limit=max(1, console.height - 5)), refresh=True)
                time.sleep(every)
        except KeyboardInterrupt:
            pass


def render_statuses(runs: list[RunStatus], limit: int | None) -> RenderableType:
    """A row per run, at most `limit` of them."""
    if not runs:
        return Text("no runs yet; start one with `rfbench run prdp --suite tiny-shapes`")
    table = Table(box=box.SIMPLE_HEAD, expand=False)
    for heading in ("suite", "variant"):
        table.add_column(heading, overflow="fold")
    table.add_column("seed", justify="right")
    table.add_column("status", overflow="fold")
    for heading in ("epoch", "reward"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("so far", no_wrap=True)
    for heading in ("drop", "left"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs[:limit]:
        table.add_row(*_cells(run))
    counts = ", ".join(
        f"{sum(r.status == s for r in runs)} {s}" for s in STATUS_ORDER if any(r.status == s for r in runs)
    )
    hidden = f"; {len(runs) - limit} not shown" if limit is not None and len(runs) > limit else ""
    meaning = "reward: the training reward's last evaluation, on seen prompts"
    return Group(table, Text(f" {counts}{hidden}; {meaning}", style="dim"))


def _cells(run: RunStatus) -> list[str]:
    status = f"[{STYLES.get(run.status, 'default')}]{escape(run.status)}[/]"
    if run.silent_seconds is not None:
        status += f" [yellow](silent for {duration(run.silent_seconds)})[/]"
    if run.error:
        status += f" {escape(run.error[:60])}"
    digits = decimals([pl.Series(run.rewards)]) if run.rewards else 0
    return [
        escape(run.suite),
        escape(run.algorithm),
        str(run.seed),
        status,
        f"{run.epoch}/{'?' if run.epochs is None else run.epochs}",
        f"{run.rewards[-1]:.{digits}f}" if run.rewards else "–",
        sparkline(run.rewards),
        "–" if run.drawdown is None else f"{run.drawdown:.{digits}f}",
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
    )


def _seconds_of_epochs(metrics: pl.DataFrame) -> list[float]:
    phases = [column for column in EPOCH_SECONDS if column in metrics.columns]
    return metrics.select(pl.sum_horizontal(phases)).to_series().to_list() if phases else []


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
