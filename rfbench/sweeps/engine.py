"""Where a sweep's runs are made: what this machine's lanes and a Slurm cluster have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rfbench.sweeps.jobs import Job


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ``error`` is None where its run is finished."""

    job: Job
    error: str | None
    skipped: bool = False  # it was finished before


class Engine(Protocol):
    """Makes the runs of a sweep."""

    def run(self, jobs: Sequence[Job], look: Callable[[list[Outcome]], None]) -> list[Outcome]:
        """Sees to every job that is not finished, and returns how those ended that have; ``look`` is told of them."""
        ...


class Attempt:
    """One try at a job, from its start: what it wrote is told from what an earlier try left in the same files."""

    def __init__(self, job: Job) -> None:
        self._job, self._before = job, job.record()
        self._log_start = job.log.stat().st_size if job.log.exists() else 0

    def outcome(self, ended: str) -> Outcome:
        """How the job stands now that the try has ended; ``ended`` is what it ended by, such as its exit code."""
        if self._job.finished:
            return Outcome(self._job, None)
        record = self._job.record()
        if record is not None and record != self._before and record.status == "failed":
            return Outcome(self._job, str(record.error))
        return Outcome(self._job, self._reason(ended))

    def _reason(self, ended: str) -> str:
        if "killed" in ended:  # what it printed last is no reason
            return ended
        printed = last_line(self._job.log, self._log_start)
        return f"{printed} ({ended})" if printed else f"{ended}, and printed nothing"


def last_line(log: Path, start: int = 0) -> str:
    """The last line of a log from byte ``start`` on; empty where there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(start)
            lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""
