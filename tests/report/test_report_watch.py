"""What `rfbench watch` says about runs that go on, stop, and break."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from rich.console import Console

from rfbench.records.pace import duration, seconds_left
from rfbench.report.render.watch import Watcher, sparkline, watch
from tests.report.run_writer import write_run

UPDATED = "2026-01-01T00:00:00+00:00"
JUST_THEN = datetime(2026, 1, 1, 0, 0, 10, tzinfo=timezone.utc)


def test_a_running_run_shows_reward_drop_and_time_left(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, [1.0, 3.0, 2.5], status="running", epochs=20, updated_at=UPDATED)
    (run,) = Watcher([tmp_path]).look(JUST_THEN)
    assert (run.epoch, run.epochs) == (10, 20)
    assert run.rewards == (1.0, 3.0, 2.5)
    assert run.drawdown == 0.5
    assert run.seconds_left == pytest.approx(10 * 6.0)  # 2 + 3 + 1 seconds per epoch
    assert run.silent_seconds is None


def test_a_run_that_says_nothing_is_called_silent(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, status="running", updated_at=UPDATED)
    (run,) = Watcher([tmp_path]).look(JUST_THEN + timedelta(minutes=10))
    assert run.silent_seconds == 610


def test_running_runs_come_first_and_changes_are_seen(tmp_path: Path) -> None:
    write_run(tmp_path, "ddpo", 0, status="failed", error="loss is NaN")
    write_run(tmp_path, "prdp", 0, [1.0, 2.0])
    watcher = Watcher([tmp_path])
    assert [run.status for run in watcher.look()] == ["failed", "finished"]
    write_run(tmp_path, "prdp", 0, [1.0, 2.0, 7.0], status="running")
    first = watcher.look()[0]
    assert (first.status, first.rewards[-1]) == ("running", 7.0)


def test_damage_and_emptiness_are_no_crash(tmp_path: Path) -> None:
    output = io.StringIO()
    watch([tmp_path], Console(file=output))
    assert "no runs yet" in output.getvalue()
    folder = write_run(tmp_path, "prdp", 0, status="running")
    (folder / "evals.jsonl").write_text('{"epoch": 0, "mea')
    (folder / "metrics.jsonl").unlink()
    (write_run(tmp_path, "ddpo", 0) / "run.json").write_text("{")
    (run,) = Watcher([tmp_path]).look()
    assert (run.rewards, run.drawdown, run.seconds_left) == ((), None, None)


def test_without_a_terminal_it_prints_once(tmp_path: Path) -> None:
    write_run(tmp_path, "[red]prdp", 0, [1.0, 2.0, 3.0])
    output = io.StringIO()
    watch([tmp_path], Console(file=output, width=100))
    text = output.getvalue()
    assert "[red]prdp" in text
    assert "▁▅█" in text
    assert "1 finished" in text


def test_a_sparkline_spans_its_own_range() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 5]) == "▁▁"
    assert len(sparkline(range(100))) == 16


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "?"), (5, "5s"), (65, "1m05s"), (3725, "1h02m"), (324 * 86400, "324 days")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_what_is_left_is_at_the_pace_of_the_last_five_epochs() -> None:
    assert seconds_left([], 3) is None
    assert seconds_left([100.0, 1.0, 2.0, 3.0, 4.0, 5.0], 10) == 30.0
    assert seconds_left([1.0], -1) == 0.0
