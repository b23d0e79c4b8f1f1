"""What `rfbench watch` says about runs that go on, stop, and break."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from rich.console import Console

from rfbench.errors import InputError, RfbenchError
from rfbench.records.pace import duration, seconds_left
from rfbench.records.submission import Task, TaskState
from rfbench.report.render.watch import Watcher, sparkline, watch
from tests.report.run_writer import SUITE, write_run

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


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_holds_a_runs_names_and_status_in_one_line(tmp_path: Path, width: int) -> None:
    write_run(
        tmp_path, "prdp-no-clip", curve=[21.0 + 0.1 * k for k in range(11)], suite=SUITE | {"name": "large-shapes"}
    )
    output = io.StringIO()
    watch([tmp_path], Console(file=output, width=width))
    assert "large-shapes prdp-no-clip    0 finished 50/50  22.00 " in output.getvalue()


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


def task(folder: Path, state: str, *, active: bool, reason: str = "None", node: str = "") -> TaskState:
    made = Task("tiny", folder.parent.name, int(folder.name.removeprefix("seed-")), (), str(folder), "")
    return TaskState(made, "7_0", state, active, node, reason, "some code")


@pytest.mark.parametrize(
    ("in_folder", "state", "active", "shown", "said"),
    [
        ("interrupted", "PENDING", True, "queued", "again (BeginTime)"),  # it has put itself back into the queue
        ("running", "RUNNING", True, "running", None),
        ("failed", "RUNNING", True, "running", None),  # tried again
        ("running", "CANCELLED", False, "interrupted", "job 7_0 is over: cancelled"),  # killed before it could say so
        ("running", "NODE_FAIL", False, "interrupted", "job 7_0 is over: node_fail"),
        ("interrupted", "CANCELLED", False, "interrupted", None),
        ("finished", "COMPLETED", False, "finished", None),
    ],
)
def test_folder_and_queue_together_say_how_a_run_is(
    tmp_path: Path, in_folder: str, state: str, active: bool, shown: str, said: str | None
) -> None:
    folder = write_run(tmp_path, "prdp", 0, status=in_folder, host="n1", job="7_0", restart=2, error=None)
    waits = [task(folder.resolve(), state, active=active, reason="BeginTime")]
    (run,) = Watcher([tmp_path], lambda: waits).look()
    assert (run.status, run.error, run.where) == (shown, said, "n1, job 7_0, restart 2")


def test_tasks_without_a_folder_are_shown_too_and_those_of_other_folders_are_not(tmp_path: Path) -> None:
    here = (tmp_path / "results").resolve()
    waits = [
        task(here / "tiny" / "prdp" / "seed-0", "PENDING", active=True, reason="Resources"),
        task(here / "tiny" / "prdp" / "seed-1", "FAILED", active=False, reason="n2 does not see tasks.json", node="n2"),
        task(tmp_path / "elsewhere" / "prdp" / "seed-2", "PENDING", active=True),
    ]
    queued, failed = Watcher([here], lambda: waits).look()  # although the folder is not there yet
    assert (queued.seed, queued.status, queued.error) == (0, "queued", "(Resources)")
    assert (failed.status, failed.where) == ("failed", "n2, job 7_0")
    assert failed.error == "failed before its run began: n2 does not see tasks.json"


def test_a_folder_is_waited_for_and_a_file_is_refused(tmp_path: Path) -> None:
    output = io.StringIO()
    watch([tmp_path / "later"], Console(file=output, width=200))
    assert "later is not there yet" in output.getvalue()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is not a folder"):
        Watcher([tmp_path / "file"])


def test_a_queue_that_does_not_answer_is_said_and_hides_no_run(tmp_path: Path) -> None:
    def silent() -> list[TaskState]:
        raise RfbenchError("Slurm's squeue did not answer")

    write_run(tmp_path, "prdp", 0)
    output = io.StringIO()
    watch([tmp_path], Console(file=output, width=200), silent)
    assert "the queue is not known: Slurm's squeue did not answer" in output.getvalue()
    assert "1 finished" in output.getvalue()
