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
from rfbench.running.folder import RECORDS, RunFolder


class Trackers:
    """The started trackers of a run; none on any process but the main one."""

    def __init__(self, started: list[Any]) -> None:
        self._started = started

    def add(self, name: str, *records: dict[str, Any]) -> None:
        """Passes on lines of ``<name>.jsonl``, at their epochs."""
        for record in records:
            for tracker in self._started:
                tracker.log(_values(name, record), step=record["epoch"])

    def replay(self, folder: RunFolder) -> None:
        """Passes on what the run recorded before it was resumed, epoch by epoch as it happened."""
        if self._started:
            recorded = [(name, record) for name in RECORDS for record in folder.read(name)]
            for name, record in sorted(recorded, key=lambda line: line[1]["epoch"]):
                self.add(name, record)


@contextmanager
def tracking(plan: Plan, folder: RunFolder, processes: Processes) -> Iterator[Trackers]:
    """Starts the suite's trackers in the run's folder, and finishes them however the run ends."""
    if not processes.is_main:
        yield Trackers([])
        return
    shutil.rmtree(folder.trackers, ignore_errors=True)
    name = f"{plan.suite.name}/{plan.label}/seed-{plan.seed}"
    config = {"suite": plan.suite.resolved(plan.label), "algorithm": plan.label, "seed": plan.seed}
    started = processes.start_trackers(plan.suite.compute.trackers, folder.trackers, name, config)
    try:
        yield Trackers(started)
    finally:
        for tracker in started:
            tracker.finish()


def _values(name: str, record: dict[str, Any]) -> dict[str, float]:
    """``metrics/<name>`` of an epoch, or ``<prompt set>/<measure>`` of an evaluation."""
    if name == "evals":
        return {f"{record['prompts']}/{record['measure']}": record["mean"]}
    return {f"{name}/{key}": value for key, value in record.items() if key != "epoch" and value is not None}
