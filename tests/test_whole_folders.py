"""What is written into a run's folder is there whole or not at all, and is removed in an order that leaves no lie."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from rfbench import files
from rfbench.errors import DamagedFileError, InputError
from rfbench.files import remove, set_aside, whole_folder
from rfbench.running import folder as folders
from rfbench.running.folder import RunFolder
from rfbench.running.stopping import StopRequest
from tests.commands import SETS, rfbench, said


class Crash(BaseException):
    """As ``kill -9``: nothing is tidied up that another process would not find."""


def write(path: Path, content: str) -> None:
    with whole_folder(path) as temporary:
        (temporary / "file").write_text(content)


@pytest.mark.parametrize("call", [1, 2])
def test_a_crash_between_two_renames_loses_neither(call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, rename, calls = tmp_path / "weights", os.rename, 0

    def crash(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Crash
        rename(*arguments)

    write(path, "old")
    with monkeypatch.context() as patch, pytest.raises(Crash):  # noqa: PT012
        patch.setattr(files.os, "rename", crash)
        write(path, "new")
    left = path if path.is_dir() else set_aside(path)
    assert (left / "file").read_text() == "old"
    write(path, "newer")
    assert (path / "file").read_text() == "newer"
    assert [found.name for found in tmp_path.iterdir()] == ["weights"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "weights", "old")
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "weights") as temporary:
        (temporary / "file").write_text(str(1 / 0))
    assert (tmp_path / "weights" / "file").read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["weights"]


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "thesis.txt").write_text("years of work")
    (tmp_path / "weights").symlink_to(tmp_path / "scratch")
    write(tmp_path / "weights", "new")
    assert (tmp_path / "scratch" / "thesis.txt").exists()
    assert not (tmp_path / "weights").is_symlink()
    (tmp_path / "link").symlink_to(tmp_path / "scratch")
    remove(tmp_path / "link")
    assert (tmp_path / "scratch" / "thesis.txt").exists()


def test_weights_that_a_crash_left_aside_are_still_the_runs(finished_run: Path, tmp_path: Path) -> None:
    shutil.rmtree(finished_run / "checkpoints")
    (finished_run / "weights").rename(set_aside(finished_run / "weights"))
    assert rfbench("export", finished_run, "--out", tmp_path / "copy") == 0
    assert rfbench("export", finished_run) == 0
    assert sorted(path.name for path in finished_run.iterdir() if "weights" in path.name) == ["weights"]


def test_an_export_waits_for_no_other_writer(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = RunFolder(finished_run)
    assert rfbench("export", finished_run) == 2
    assert "is being written by another process" in said(capsys)
    del held
    assert rfbench("export", finished_run) == 0


def test_an_export_of_no_run_makes_no_folder(tmp_path: Path) -> None:
    assert rfbench("export", tmp_path / "typo") == 2
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("name", ["checkpoints", "samples"])
def test_a_run_starts_over_where_a_folder_is_a_link(name: str, finished_run: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    (finished_run / name).rename(scratch)
    (finished_run / name).symlink_to(scratch)
    (scratch / "thesis.txt").write_text("years of work")
    before = sorted(path.name for path in scratch.iterdir())
    again = ["run", "prdp", "--suite", "optimum-gaussian", "--out", finished_run.parents[2], *SETS, "--overwrite"]
    assert rfbench(*again) == 0
    assert (finished_run / name).is_symlink()
    assert sorted(path.name for path in scratch.iterdir()) == before


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
def test_what_a_crash_leaves_of_a_removed_run_is_no_run(
    call: int,
    finished_run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a record would call a run finished whose files are gone."""
    remove_one, calls = folders.remove, 0

    def crash(path: Path) -> None:
        nonlocal calls
        calls += 1
        remove_one(path)
        if calls == call:
            raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):  # noqa: PT012
        patch.setattr(folders, "remove", crash)
        RunFolder(finished_run).clear()
    assert not (finished_run / "run.json").exists()
    assert (
        rfbench("run", "prdp", "--suite", "optimum-gaussian", "--out", finished_run.parents[2], *SETS, "--overwrite")
        == 0
    )


def test_nothing_of_a_removed_run_is_left_but_what_is_not_a_runs(finished_run: Path) -> None:
    """Else `rfbench sample` could draw with the weights, and the report show the scores, of a run that is gone."""
    (finished_run / "weights").rename(set_aside(finished_run / "weights"))  # as a kill leaves it
    (finished_run / "samples" / "notes.txt").write_text("mine")
    assert list(finished_run.glob("samples/epoch-*.json"))
    RunFolder(finished_run).clear()
    left = [str(path.relative_to(finished_run)) for path in sorted(finished_run.rglob("*")) if path.is_file()]
    assert left == [".lock", "samples/notes.txt"]


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "final.jsonl", "checkpoints", "samples", "weights"])
def test_a_thing_of_another_kind_is_told_before_anything_loads(
    name: str,
    finished_run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = finished_run / name
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("a file")
    else:
        path.unlink(missing_ok=True)
        path.mkdir()
    again = ["run", "prdp", "--suite", "optimum-gaussian", "--out", finished_run.parents[2], *SETS, "--overwrite"]
    assert rfbench(*again) == 2
    assert f"seed-0/{name} is a {'file' if path.is_file() else 'folder'}, which a run's {name} is not" in said(capsys)


@pytest.mark.parametrize("spoil", ["another run's", "a digit changed", "a line changed"])
def test_records_that_are_not_those_of_the_checkpoint_are_not_gone_on_with(
    spoil: str,
    finished_run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = json.loads((finished_run / "run.json").read_text())
    (finished_run / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    content = (finished_run / "evals.jsonl").read_bytes()
    changed = {
        "another run's": content.replace(b'"seen"', b'"next"') + content,
        "a digit changed": content.replace(b"1", b"2", 1),
        "a line changed": content.splitlines(keepends=True)[0] * len(content.splitlines()) + content,
    }[spoil]
    (finished_run / "evals.jsonl").write_bytes(changed)
    again = ["run", "prdp", "--suite", "optimum-gaussian", "--out", finished_run.parents[2], *SETS]
    assert rfbench(*again, "--resume") == 1
    assert "evals.jsonl is damaged" in said(capsys)
    assert rfbench(*again, "--overwrite") == 0


def test_what_was_written_after_the_checkpoint_is_no_damage(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("a\n")
    sizes, sums = folder.sizes(), folder.sums()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write("b\nhalf a li")
    folder.truncate(sizes, sums)
    assert (tmp_path / "metrics.jsonl").read_text() == "a\n"
    (tmp_path / "metrics.jsonl").write_text("c\n")
    folder.truncate(sizes, {})  # of an earlier version's checkpoint
    with pytest.raises(DamagedFileError, match=r"metrics.jsonl is damaged"):
        folder.truncate(sizes, sums)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match="records were lost"):
        folder.truncate(sizes, sums)


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_lost_terminal_asks_a_run_to_stop_but_not_under_nohup(handler: Any) -> None:
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.made == (handler is signal.SIG_DFL)
        assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_before_a_command_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    from rfbench.cli import app

    def interrupted(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "commands", interrupted)
    assert app.exit_code(["list", "algorithms"]) == app.INTERRUPTED
