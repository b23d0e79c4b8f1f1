"""TensorBoard and Weights & Biases, fed with the numbers of the JSONL records and nothing else.

The files in ``trackers/`` are rewritten from the records whenever a run starts or is resumed. So they hold each number
once, however often the run was killed, and a tracker may be turned on, off or over at a resume. On the Weights & Biases
server a resumed run is therefore a second run of the same name, with the whole history.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rfbench.core.processes import Processes
from rfbench.planning.plan import Plan
from rfbench.records.format import EpochRecord, EvaluationRecord
from rfbench.records.sink import Sink, left_out
from rfbench.running.folder import RECORDS, RunFolder


class Trackers(Sink):
    """The started trackers of a run; none on any process but the main one.

    One that fails is left out from then on, and ``note`` is told: the records hold the same numbers.
    """

    def __init__(self, started: Sequence[Any], note: Callable[[str], None]) -> None:
        self._started, self._note = list(started), note

    def on_epoch(self, record: EpochRecord) -> None:
        self._add(record)

    def on_evaluation(self, records: Sequence[EvaluationRecord]) -> None:
        self._add(*records)

    def _add(self, *records: EpochRecord | EvaluationRecord) -> None:
        """Passes on records, at their epochs."""
        for record in records:
            for tracker in tuple(self._started):
                with self._left_out_if_it_fails(tracker):
                    tracker.log(_values(record), step=record.epoch)

    def replay(self, folder: RunFolder) -> None:
        """Passes on what the run recorded before it was resumed, epoch by epoch as it happened."""
        if self._started:
            recorded = [record for name in RECORDS for record in folder.read(name)]
            self._add(*sorted(recorded, key=lambda record: record.epoch))

    def finish(self) -> None:
        for tracker in tuple(self._started):
            with self._left_out_if_it_fails(tracker):
                tracker.finish()

    @contextmanager
    def _left_out_if_it_fails(self, tracker: Any) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever its server, its process or its disk does
            self._started.remove(tracker)
            self._note(left_out(f"tracker {tracker.name}", error))


@contextmanager
def tracking(plan: Plan, folder: RunFolder, processes: Processes, note: Callable[[str], None]) -> Iterator[Trackers]:
    """Starts the suite's trackers in the run's folder, and finishes them however the run ends."""
    if not processes.is_main:
        yield Trackers([], note)
        return
    shutil.rmtree(folder.trackers, ignore_errors=True)
    name = f"{plan.suite.name}/{plan.label}/seed-{plan.seed}"
    config = {"suite": plan.resolved(), "variant": plan.label, "seed": plan.seed}
    started = processes.start_trackers(plan.suite.compute.trackers, folder.trackers, name, config)
    trackers = Trackers(started, note)
    try:
        yield trackers
    finally:
        trackers.finish()


def _values(record: EpochRecord | EvaluationRecord) -> dict[str, float]:
    """``metrics/<name>`` of an epoch, or ``<evaluation set>/<measure>`` of an evaluation."""
    if isinstance(record, EvaluationRecord):
        return {f"{record.evaluation_set}/{record.measure}": record.mean}
    return {f"metrics/{key}": value for key, value in record if key != "epoch" and value is not None}
