"""A run that is asked to stop: after its epoch, with a checkpoint; at once where the epoch is too long."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rfbench.running import stopping
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Suite
from tests import tiny
from tests.test_trainer import assert_same_run

pytestmark = pytest.mark.slow

WARNING, END = signal.SIGUSR2, signal.SIGTERM


class Asked(Quiet):
    """Sends signals to the run in its second epoch."""

    def __init__(self, *signals: signal.Signals, seconds: float = 0) -> None:
        super().__init__()
        self._signals, self._seconds = signals, seconds

    def on_epoch(self, record: Any) -> None:
        if json.loads(record.to_json())["epoch"] == 2:
            for number in self._signals:
                os.kill(os.getpid(), number)
            time.sleep(self._seconds)


@pytest.fixture(scope="module")
def rarely(pipeline: Path, prompt_file: Path) -> Suite:
    """A suite no checkpoint of which is due before the end."""
    compute = {"chunk_size": 8, "device": "cpu", "checkpoint_every": 10}
    return tiny.make_suite(pipeline, prompt_file, compute=compute)


@pytest.fixture(scope="module")
def whole(rarely: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its run that nobody asked to stop."""
    return train(tiny.plan(rarely), tmp_path_factory.mktemp("whole"), Quiet())


def stopped(suite: Suite, out: Path, progress: Quiet) -> dict[str, Any]:
    with pytest.raises(KeyboardInterrupt):
        train(tiny.plan(suite), out, progress)
    return json.loads((out / "tiny" / "prdp" / "seed-0" / "run.json").read_text())


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGUSR2,), (signal.SIGTERM,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGUSR2, signal.SIGTERM)],
)
def test_it_stops_after_its_epoch_with_a_checkpoint_and_goes_on_as_if_it_had_not(
    rarely: Suite, whole: Path, tmp_path: Path, signals: tuple[signal.Signals, ...]
) -> None:
    record = stopped(rarely, tmp_path / "out", Asked(*signals))
    assert (record["status"], record["epoch"]) == ("interrupted", 2)
    folder = tmp_path / "out" / "tiny" / "prdp" / "seed-0"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["epoch-000002"]
    train(tiny.plan(rarely), tmp_path / "out", Quiet(), resume=True)
    assert_same_run(whole, folder)


def test_sigterm_does_not_wait_for_a_long_epoch(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sent it kills the run soon: better to say so than to be killed."""
    monkeypatch.setattr(stopping, "GRACE_SECONDS", 1)
    record = stopped(suite, tmp_path, Asked(signal.SIGTERM, seconds=600))
    assert record["status"] == "interrupted"
    assert [path.name for path in (tmp_path / "tiny" / "prdp" / "seed-0" / "checkpoints").iterdir()] == ["epoch-000001"]


class Swallows(Asked):
    """As a reward whose ``except:`` takes whatever comes for a failure of its own."""

    def on_epoch(self, record: Any) -> None:
        with suppress(KeyboardInterrupt):
            super().on_epoch(record)


def test_ctrl_c_that_a_plugin_swallows_still_ends_the_run(rarely: Suite, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    try:
        record = stopped(rarely, tmp_path, Swallows(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert (record["status"], record["epoch"]) == ("interrupted", 2)


def test_the_handlers_of_the_caller_come_back(suite: Suite, tmp_path: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    stopped(suite, tmp_path, Asked(signal.SIGTERM))
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
