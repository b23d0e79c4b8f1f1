"""TensorBoard and Weights & Biases, fed with the numbers of the JSONL records and nothing else.

The files in ``trackers/`` are rewritten from the records whenever a run starts or is resumed. So they hold each number
once, however often the run was killed, and a tracker may be turned on, off or over at a resume. On the Weights & Biases
server a resumed run is therefore a second run of the same name, with the whole history.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rfbench.core.processes import Processes
from rfbench.planning.plan import Plan
from rfbench.records.format import EpochRecord, EvaluationRecord
from rfbench.running.folder import RECORDS, RunFolder


class Trackers:
    """The started trackers of a run; none on any process but the main one."""

    def __init__(self, started: list[Any]) -> None:
        self._started = started

    def add(self, *records: EpochRecord | EvaluationRecord) -> None:
        """Passes on records, at their epochs."""
        for record in records:
            for tracker in self._started:
                tracker.log(_values(record), step=record.epoch)

    def replay(self, folder: RunFolder) -> None:
        """Passes on what the run recorded before it was resumed, epoch by epoch as it happened."""
        if self._started:
            recorded = [record for name in RECORDS for record in folder.read(name)]
            self.add(*sorted(recorded, key=lambda record: record.epoch))


@contextmanager
def tracking(plan: Plan, folder: RunFolder, processes: Processes) -> Iterator[Trackers]:
    """Starts the suite's trackers in the run's folder, and finishes them however the run ends."""
    if not processes.is_main:
        yield Trackers([])
        return
    shutil.rmtree(folder.trackers, ignore_errors=True)
    name = f"{plan.suite.name}/{plan.label}/seed-{plan.seed}"
    config = {"suite": plan.resolved(), "variant": plan.label, "seed": plan.seed}
    started = processes.start_trackers(plan.suite.compute.trackers, folder.trackers, name, config)
    try:
        yield Trackers(started)
    finally:
        for tracker in started:
            tracker.finish()


def _values(record: EpochRecord | EvaluationRecord) -> dict[str, float]:
    """``metrics/<name>`` of an epoch, or ``<evaluation set>/<measure>`` of an evaluation."""
    if isinstance(record, EvaluationRecord):
        return {f"{record.evaluation_set}/{record.measure}": record.mean}
    return {f"metrics/{key}": value for key, value in record if key != "epoch" and value is not None}
