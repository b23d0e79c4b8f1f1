"""A wall clock that is wrong."""

from __future__ import annotations

import os
import random
import time
from datetime import datetime, tzinfo
from pathlib import Path

from rfbench.inference import judged
from rfbench.running import trainer
from tests.faults import runs
from tests.faults.contents import require_same
from tests.faults.moments import moment
from tests.faults.trial import Trial


def jumping_clock(trial: Trial) -> None:
    """A clock that jumps by days, and files of the future: nothing is decided by a date."""
    training = runs.gaussian(trial.random.choice(runs.ALGORITHMS))
    expected, length = runs.whole(trial, training), runs.length(trial, training)
    clock = (_jump, (trial.seed,))
    killed = trial.rfbench_killed(training.command("out"), clock, moment(trial.random, length))
    if killed.code != 0:
        for path in sorted((trial.folder / "out").rglob("*")):
            _date(path, trial.random.uniform(0, 4e9))
        trial.done(runs.go_on(trial, training), clock)
    require_same(training.folder(trial.folder / "out"), expected)


def _date(path: Path, seconds: float) -> None:
    os.utime(path, (seconds, seconds))


def _jump(seed: int) -> None:
    """The wall clock goes forwards and backwards; the monotonic one does not, by its definition."""
    numbers, real = random.Random(seed), time.time

    def jumping() -> float:
        return real() + numbers.uniform(-1e8, 1e8)

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Jumping:
            return cls.fromtimestamp(jumping(), tz)

    time.time = jumping
    for module in (trainer, judged):
        module.datetime = Jumping  # type: ignore[attr-defined]
