"""Signals that ask a run to end."""

from __future__ import annotations

import signal
import time

from tests.faults import runs
from tests.faults.commands import Running
from tests.faults.contents import require_same
from tests.faults.trial import Broken, Trial, require_proper


def stop(trial: Trial) -> None:
    """Ctrl-C, ``kill``, a lost terminal, a cluster's warning, at any moment: the run is resumable, and says so."""
    training = runs.any_training(trial, trial.random)
    expected, length = runs.whole(trial, training), runs.length(trial, training)
    number = trial.random.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
    after = trial.random.uniform(0, length.seconds)
    trial.steps.append(f"{training.command('out')}: {number.name} after {after:.2f} s")
    running = Running(training.command("out"), trial.folder)
    time.sleep(after)
    running.send(number)
    result = require_proper(running.end(), number)
    if any(record.status == "running" for record in runs.records(trial.folder / "out")):
        raise Broken(f"the record says that it is running; it printed {result.words[-200:]}")
    trial.done(runs.go_on(trial, training))
    require_same(training.folder(trial.folder / "out"), expected)
