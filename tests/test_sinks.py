"""What a user's sink hears of a run, and that it can do no harm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import rfbench
from rfbench.errors import InputError
from rfbench.records.format import EpochRecord, EvaluationRecord, RunRecord
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Suite
from tests import tiny
from tests.runs import assert_same_run


class Heard(rfbench.Sink):
    """Keeps what it is told, and stops or fails after an epoch."""

    def __init__(self, at: int = 0, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.heard: list[str] = []
        self._at, self._error = at, error

    def on_epoch(self, record: EpochRecord) -> None:
        self.heard.append(f"epoch {record.epoch}")
        if record.epoch == self._at:
            raise self._error("enough")

    def on_evaluation(self, records: Sequence[EvaluationRecord]) -> None:
        (epoch,) = {record.epoch for record in records}
        self.heard.append(f"{len({record.measure for record in records})} measures after {epoch}")

    def on_end(self, record: RunRecord) -> None:
        self.heard.append(record.status)


WHOLE = ["5 measures after 0", "epoch 1", "epoch 2", "5 measures after 2", "epoch 3", "5 measures after 3", "finished"]


def test_a_sink_hears_every_record_in_order_and_the_end(suite: Suite, tmp_path: Path) -> None:
    sink = Heard()
    train(tiny.plan(suite), tmp_path, Quiet(), sinks=[sink])
    assert sink.heard == WHOLE


@pytest.mark.slow
def test_a_sink_may_stop_a_run_which_then_resumes(suite: Suite, tmp_path: Path, whole: Callable[[str], Path]) -> None:
    first, second = Heard(at=2), Heard()
    with pytest.raises(KeyboardInterrupt):
        train(tiny.plan(suite), tmp_path / "stopped", Quiet(), sinks=[first])
    assert first.heard == ["5 measures after 0", "epoch 1", "epoch 2", "interrupted"]
    resumed = train(tiny.plan(suite), tmp_path / "stopped", Quiet(), sinks=[second], resume=True)
    assert second.heard == WHOLE[2:]  # the second epoch again, which had no checkpoint
    assert_same_run(resumed, whole("prdp"))


@pytest.mark.parametrize("error", [RuntimeError, ValueError])
def test_a_sink_that_fails_costs_no_run(
    suite: Suite, tmp_path: Path, error: type[Exception], whole: Callable[[str], Path]
) -> None:
    failing, other, quiet = Heard(at=1, error=error), Heard(), Quiet()
    path = train(tiny.plan(suite, "ddpo"), tmp_path / "told", quiet, sinks=[failing, other])
    assert failing.heard == WHOLE[:2]
    assert other.heard == WHOLE
    assert any(f"the sink Heard failed ({error.__name__}: enough)" in note for note in quiet.notes)
    assert_same_run(path, whole("ddpo"))


@pytest.mark.parametrize(
    ("sinks", "message"),
    [
        ([Heard], r"sinks holds <class '.*Heard'>, which is no Sink; .* pass \[MySink\(\)\]"),
        ([None], "sinks holds None, which is no Sink"),
        (Heard(), "sinks is <.*Heard object at .*>, not a list"),
    ],
)
def test_what_is_no_sink_is_refused_before_anything_loads(tmp_path: Path, sinks: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rfbench.run("prdp", suite="optimum-gaussian", out=tmp_path / "out", sinks=sinks)
    assert not (tmp_path / "out").exists()


def test_a_quiet_run_warns_of_a_sink_that_failed(tmp_path: Path) -> None:
    settings = {"epochs": 1, "budget.reward_queries_per_epoch": 16}
    with pytest.warns(UserWarning, match="the sink Heard failed"):
        rfbench.run(
            "prdp",
            suite="optimum-gaussian",
            overrides=settings,
            out=tmp_path,
            sinks=[Heard(at=1, error=ValueError)],
            quiet=True,
        )
