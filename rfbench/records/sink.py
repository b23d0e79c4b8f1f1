"""Where a run's records go while it makes them: its files, trackers and display, and whatever a user adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rfbench.errors import InputError
from rfbench.records.format import EpochRecord, EvaluationRecord, RunRecord


class Sink:
    """Told of a run's records as they are made; a subclass fills in what it wants to hear.

    A run that is resumed tells what it makes: from its last checkpoint on, so that what came after that before it was
    stopped is told again, with the same numbers.

    A user's sink stops a run by ``KeyboardInterrupt`` alone, as Ctrl-C does. After an ``Exception`` the run goes on
    without that sink; ``sys.exit`` fails the run, as it does anywhere in one.
    """

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch's line of ``metrics.jsonl``."""

    def on_evaluation(self, records: Sequence[EvaluationRecord]) -> None:
        """The lines of ``evals.jsonl`` of one evaluation; its sample images are saved by then."""

    def on_end(self, record: RunRecord) -> None:
        """The run's ``run.json`` when it has ended, whose ``status`` is finished, interrupted or failed."""


def check_sinks(sinks: Sequence[Sink]) -> None:
    """An ``InputError`` where a user's sinks are none."""
    if not isinstance(sinks, Sequence):
        raise InputError(f"sinks is {sinks!r}, not a list of them; pass [MySink()]")
    for sink in sinks:
        if not isinstance(sink, Sink):
            raise InputError(f"sinks holds {sink!r}, which is no Sink; subclass rfbench.Sink, and pass [MySink()]")


class Harmless(Sink):
    """A user's sink, which is left out once it fails, and ``note`` is told: it costs no run."""

    def __init__(self, sink: Sink, note: Callable[[str], None]) -> None:
        self._sink: Sink | None = sink
        self._note = note

    def on_epoch(self, record: EpochRecord) -> None:
        self._tell(lambda sink: sink.on_epoch(record))

    def on_evaluation(self, records: Sequence[EvaluationRecord]) -> None:
        self._tell(lambda sink: sink.on_evaluation(records))

    def on_end(self, record: RunRecord) -> None:
        self._tell(lambda sink: sink.on_end(record))

    def _tell(self, call: Callable[[Sink], None]) -> None:
        if self._sink is None:
            return
        try:
            call(self._sink)
        except Exception as error:
            self._note(left_out(f"sink {type(self._sink).__name__}", error))
            self._sink = None


def left_out(what: str, error: Exception) -> str:
    """What is said where something that only hears of a run has failed."""
    return (
        f"the {what} failed ({type(error).__name__}: {error}); the run goes on without it, and its numbers are in "
        "metrics.jsonl and evals.jsonl"
    )
