"""What a sweep takes: time, and CPU time."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Spent:
    """What a sweep took: seconds of its own, and of all its runs on CPU cores."""

    seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        cores = self.cpu_seconds / self.seconds
        return f"{self.cpu_seconds / 3600:.2f} CPU hours in {self.seconds / 3600:.2f} hours: {cores:.2f} cores busy"


class Stopwatch:
    """Starts when it is made; ``spent`` counts the child processes that have ended since."""

    def __init__(self) -> None:
        self._start, self._before = time.monotonic(), self._cpu_seconds()

    def spent(self) -> Spent:
        return Spent(time.monotonic() - self._start, self._cpu_seconds() - self._before)

    @staticmethod
    def _cpu_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
