"""What a person sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rfbench.core.meter import Meter
from rfbench.planning.plan import Plan
from rfbench.records.format import EpochRecord, EvaluationRecord
from rfbench.records.pace import EPOCH_SECONDS, duration, seconds_left
from rfbench.records.sink import Sink


class Progress(Sink, ABC):
    """Told by the trainer what happens."""

    @abstractmethod
    def running(self, plan: Plan, meter: Meter, epoch: int, folder: Path) -> AbstractContextManager[None]:
        """Wraps the run, which starts after ``epoch`` completed epochs."""

    @abstractmethod
    def note(self, message: str) -> None:
        """Something to say once."""


class Quiet(Progress):
    """Says nothing, and keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def running(self, plan: Plan, meter: Meter, epoch: int, folder: Path) -> AbstractContextManager[None]:
        return nullcontext()

    def note(self, message: str) -> None:
        self.notes.append(message)


class Warnings(Quiet):
    """Says nothing but the notes, as Python warnings."""

    def note(self, message: str) -> None:
        warnings.warn(message, stacklevel=2)


class Lines(Progress):
    """One plain line per event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def running(self, plan: Plan, meter: Meter, epoch: int, folder: Path) -> Iterator[None]:
        self._clock = _Clock(plan.suite.epochs, epoch)
        self._plan, self._meter = plan, meter
        self._print(
            f"{plan.label} on {plan.suite.name}, seed {plan.seed}: epochs {epoch}-{plan.suite.epochs}, {folder}"
        )
        yield
        self._print(f"finished in {duration(self._clock.elapsed)}: {_shares(meter)}")

    def on_epoch(self, record: EpochRecord) -> None:
        self._clock.completed(record)
        memory = self._meter.peak_memory_bytes() / 2**20
        self._print(
            f"epoch {record.epoch}/{self._plan.suite.epochs}  batch reward {record.reward_mean:.4g}  "
            f"left {duration(self._clock.left)}  memory {memory:.0f} MiB"
        )

    def on_evaluation(self, records: Sequence[EvaluationRecord]) -> None:
        self._print(f"  evaluation {_summary(records)}")

    def note(self, message: str) -> None:
        self._print(message)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveDisplay(Progress):
    """A panel that refreshes: bar, phase, mean reward of the last batch, latest evaluation, time left, memory."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._record: EpochRecord | None = None
        self._evaluation = ""

    @contextmanager
    def running(self, plan: Plan, meter: Meter, epoch: int, folder: Path) -> Iterator[None]:
        self._plan, self._meter, self._folder = plan, meter, folder
        self._clock = _Clock(plan.suite.epochs, epoch)
        with Live(get_renderable=self._panel, console=self._console, refresh_per_second=4):
            yield
        self._console.print(f"finished in {duration(self._clock.elapsed)}: {_shares(meter)}", highlight=False)

    def on_epoch(self, record: EpochRecord) -> None:
        self._record = record
        self._clock.completed(record)

    def on_evaluation(self, records: Sequence[EvaluationRecord]) -> None:
        self._evaluation = _summary(records)

    def note(self, message: str) -> None:
        self._console.print(message, markup=False, style="yellow")

    def _panel(self) -> RenderableType:
        epochs = self._plan.suite.epochs
        reward = f"{self._record.reward_mean:.4g}" if self._record else "-"
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column()
        table.add_row("epoch", f"{self._clock.epoch}/{epochs}   left {duration(self._clock.left)}")
        table.add_row("", ProgressBar(total=epochs, completed=self._clock.epoch, width=40))
        table.add_row("now", self._meter.current_phase)
        table.add_row("batch reward", reward)
        table.add_row("evaluation", self._evaluation or "-")
        table.add_row("memory", f"{self._meter.peak_memory_bytes() / 2**20:.0f} MiB")
        title = Text(f"{self._plan.label} on {self._plan.suite.name}, seed {self._plan.seed}")
        return Panel(table, title=title, subtitle=Text(str(self._folder)), title_align="left", subtitle_align="left")


class _Clock:
    """Time since this process began the run, and what is left of it."""

    def __init__(self, epochs: int, epoch: int) -> None:
        self._epochs, self._since = epochs, time.monotonic()
        self._seconds: list[float] = []
        self.epoch = epoch

    def completed(self, record: EpochRecord) -> None:
        self.epoch = record.epoch
        self._seconds.append(sum(getattr(record, name) for name in EPOCH_SECONDS))

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._since

    @property
    def left(self) -> float | None:
        return seconds_left(self._seconds, self._epochs - self.epoch)


def _summary(records: Sequence[EvaluationRecord]) -> str:
    """``"seen: shapes-gold 0.61, ...; unseen: ..."``"""
    sets: dict[str, list[str]] = {}
    for record in records:
        if record.measure != "kl_per_dimension":
            sets.setdefault(record.evaluation_set, []).append(f"{record.measure} {record.mean:.4g}")
    return "; ".join(f"{name}: {', '.join(values)}" for name, values in sets.items())


def _shares(meter: Meter) -> str:
    seconds = meter.lap()
    total = sum(seconds.values())
    return ", ".join(f"{name} {value / total:.0%}" for name, value in seconds.items() if value > 0)
