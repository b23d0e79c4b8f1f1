"""Users' paths and names: nothing of theirs is deleted, nothing is written elsewhere, every error is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rfbench.core.model import Model
from rfbench.errors import FILE_ERRORS, ExhaustedError, InputError, file_error
from rfbench.names import check_name
from rfbench.planning.plan import make_outline
from rfbench.running import checkpoint, failures
from rfbench.running.folder import RunFolder
from rfbench.suite.loading import load_suite, suite_of
from rfbench.sweeps.jobs import make_jobs
from tests.commands import SETS, SHORT, rfbench


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("where", ["mine", "results", "run", "file", "link", "."])
def test_an_export_touches_nothing_that_is_there(
    where: str, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("more of it")
    (tmp_path / "link").symlink_to("nowhere")
    before = _files(tmp_path)
    assert rfbench("export", finished_run, "--out", finished_run if where == "run" else where) == 2
    assert "exists already, and is left as it is" in " ".join(capsys.readouterr().err.split())
    assert _files(tmp_path) == before


def test_an_export_to_a_new_folder_and_to_the_runs_own(finished_run: Path, tmp_path: Path) -> None:
    assert rfbench("export", finished_run, "--out", tmp_path / "new" / "weights") == 0
    (finished_run / "weights" / "weights.safetensors").write_bytes(b"old")
    assert rfbench("export", finished_run) == 0
    ours, theirs = (
        load_file(folder / "weights.safetensors") for folder in (finished_run / "weights", tmp_path / "new/weights")
    )
    assert torch.equal(ours["shift"], theirs["shift"])
    assert sorted(path.name for path in finished_run.iterdir() if "weights" in path.name) == ["weights"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["weights"]


def test_a_full_disk_leaves_the_weights_that_are_there(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Model, folder: Path, adapter: str | None) -> None:
        (folder / "weights.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "weights.safetensors"))

    before = _files(finished_run)
    monkeypatch.setattr(Model, "save_trained", full)
    assert rfbench("export", finished_run) == 1
    assert _files(finished_run) == before


def test_torch_saves_word_for_a_full_disk_is_known(tmp_path: Path) -> None:
    with pytest.raises(ExhaustedError, match="could not be written"), failures.writing(tmp_path / "x"):
        raise RuntimeError("basic_ios::clear: iostream error")
    with pytest.raises(RuntimeError, match="another"), failures.writing(tmp_path / "x"):
        raise RuntimeError("another")


def test_a_checkpoint_removes_older_ones_and_nothing_else(tmp_path: Path) -> None:
    owner = checkpoint.Owner("suite", "prdp", "variant", 0)
    saved = [checkpoint.Checkpoint(epoch, {"w": torch.ones(1)}, {}, {}, {}) for epoch in (1, 2)]
    checkpoint.save(tmp_path, saved[0], owner)
    (tmp_path / ".DS_Store").write_text("of the file manager")
    (tmp_path / "notes").mkdir()
    (tmp_path / ".epoch-000000.tmp").mkdir()  # of a run that was killed
    checkpoint.save(tmp_path, saved[1], owner)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".DS_Store", "epoch-000002", "notes"]


NAMES = ["", " ", "..", ".", "../../escaped", "/abs/path", "a/b", "a\\b", "a\nb", "a\x00b", ".hidden", "é" * 101, " a"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_cannot_be_folders(name: str, tmp_path: Path) -> None:
    suite: dict[str, Any] = load_suite("optimum-gaussian").model_dump()
    seen = suite["evaluation"]["sets"]["seen"]
    for changes in (
        {"name": name},
        {"algorithms": suite["algorithms"] | {name: suite["algorithms"]["prdp"]}},
        {"evaluation": suite["evaluation"] | {"sets": {name: seen}}},
    ):
        with pytest.raises(InputError, match="cannot name a folder or file of the results"):
            suite_of(suite | changes, [], "mine")
    with pytest.raises(InputError, match="cannot name a folder or file of the results"):
        make_outline(load_suite("optimum-gaussian"), name, seed=0)


@pytest.mark.parametrize("name", ["prdp-learning_rate-x0_3", "größe 2", "[red]", "$(rm)", "a.b", "-x", "日本語"])
def test_names_that_can(name: str) -> None:
    assert check_name(name) == name


def test_names_with_markup_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--set", "name=[red]", *SETS]
    assert rfbench("run", "prdp", "--suite", "optimum-gaussian", "--out", tmp_path, "--dry-run", *arguments) == 0
    assert "prdp on [red], 1 epochs" in capsys.readouterr().out
    assert rfbench("show", "optimum-gaussian", "--set", "name=[red]") == 0
    assert 'name = "[red]"' in capsys.readouterr().out


def test_seeds_are_not_negative() -> None:
    with pytest.raises(InputError, match="the seed is -1"):
        make_outline(load_suite("optimum-gaussian"), "prdp", seed=-1)


@pytest.mark.parametrize("seeds", ["5-0", "1-2-3", "-1", "1_0", "", "0-", "a", "0-100000000", "9" * 30])
def test_seeds_that_are_none(seeds: str, tmp_path: Path) -> None:
    arguments = ["sweep", "prdp", "--suite", "optimum-gaussian", "--out", tmp_path, f"--seeds={seeds}", "--dry-run"]
    assert rfbench(*arguments) == 2


def test_a_prime_budget_is_answered_at_once() -> None:
    suite = load_suite("optimum-gaussian", ["budget.reward_queries_per_epoch=1000000007"])
    with pytest.raises(InputError, match="one of 1, 1000000007"):
        suite.prompts_per_epoch("prdp")
    square = load_suite(
        "optimum-gaussian", ["budget.reward_queries_per_epoch=36", "algorithms.prdp.images_per_prompt=5"]
    )
    with pytest.raises(InputError, match=r"one of 1, 2, 3, 4, 6, 9, 12, 18, 36$"):
        square.prompts_per_epoch("prdp")


BROKEN = {
    "empty": b"",
    "cut": b'{"format": 2, "sta',
    "null": b"null",
    "list": b"[]",
    "keys": b"{}",
    "bytes": b"\xff\xfe",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_record_is_told_and_overwrite_starts_over(
    content: bytes, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished_run / "run.json").write_bytes(content)
    again = ["run", "prdp", "--suite", "optimum-gaussian", "--out", finished_run.parents[2], *SETS]
    sample = ["sample", finished_run, "--prompt", "a point at 0 degrees", "--out", tmp_path / "x"]
    export = ["export", finished_run, "--out", tmp_path / "y"]
    for arguments in (again, [*again, "--resume"], ["evaluate", finished_run], sample, export):
        assert rfbench(*arguments) == 2, arguments
        said = " ".join(capsys.readouterr().err.split())
        assert str(finished_run / "run.json") in said.replace(" ", "")  # lines are broken anywhere
        assert "--overwrite" in said
    (job,) = make_jobs(["optimum-gaussian"], ["prdp"], [0], finished_run.parents[2], overrides=SHORT)
    assert not job.finished  # and a sweep goes on
    assert rfbench(*again, "--overwrite") == 0
    assert RunFolder(finished_run, writer=False).require_run().status == "finished"


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    """Paths that cannot be written to."""
    file = tmp_path / "file"
    file.write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return {
        "a file": file,
        "below a file": file / "below",
        "too long": tmp_path / ("x" * 300),
        "a loop": tmp_path / "loop" / "x",
        "no disk": Path("/proc/no/such"),
        "a device": Path("/dev/null"),
    }


@pytest.mark.parametrize("where", ["a file", "below a file", "too long", "a loop", "no disk", "a device"])
def test_out_that_cannot_be_written(
    where: str, paths: dict[str, Path], finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = paths[where]
    commands: list[list[str | Path]] = [
        ["run", "prdp", "--suite", "optimum-gaussian", *SETS],
        ["sample", finished_run, "--prompt", "a point at 0 degrees"],
        ["export", finished_run],
        ["calibrate", "optimum-gaussian"],
    ]
    for command in commands:
        assert rfbench(*command, "--out", out) == 2, command
        said = capsys.readouterr().err
        (line,) = [line for line in said.strip().splitlines() if not line.endswith(" ...")]  # what it is doing
        assert line.startswith("error: ")


@pytest.mark.parametrize("number", sorted(FILE_ERRORS))
def test_every_error_of_a_file_names_its_path(number: int) -> None:
    said = file_error(OSError(number, os.strerror(number), "/some/path"))
    assert said is not None
    assert said.startswith("/some/path: ")


def test_errors_that_are_of_no_file_are_not_explained_away() -> None:
    assert file_error(ConnectionResetError("peer")) is None
    assert file_error(OSError("no number")) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfen\x00a\x00", "cannot be read as UTF-8"),
        ('name = "é"'.encode("latin-1"), "cannot be read as UTF-8"),
        (b"x = " + b"[" * 5000, "is not valid TOML"),
        (b"x = " + b"1" * 5000, "is not valid TOML"),
        (b"[algorithms.a]\nlike = [1]", r"algorithms.a.like is \[1\]"),
        (b"[algorithms]\na = 1\n[algorithms.b]\nlike = 'a'", "algorithms.a is 1, no table"),
    ],
)
def test_suite_files_that_cannot_be_read(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_suite(str(path))


@pytest.mark.parametrize(
    "override", ["algorithms.prdp=1", "evaluation.sets={}", f"epochs={'[' * 5000}", "epochs=" + "1" * 5000]
)
def test_overrides_of_another_kind(override: str) -> None:
    with pytest.raises(InputError):
        load_suite("optimum-gaussian", [override])


@pytest.mark.parametrize("what", ["pipe", "device", "folder"])
@pytest.mark.parametrize("ending", ["txt", "json", "csv", "parquet"])
def test_prompts_are_read_from_files_alone(what: str, ending: str, tmp_path: Path) -> None:
    """A pipe would be waited for without end."""
    path = tmp_path / f"prompts.{ending}"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(InputError, match="is no file that can be read again, but a folder, device or pipe"):
        make_outline(load_suite("tiny-shapes", [f"prompts.train={{name='file', path='{path}'}}"]), "prdp", 0).open()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "run", "--prompt", "a", "--images", "9999999999"], "Invalid value for '--images'"),
        (["reward", "check", "gaussian-linear", "--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["reward", "check", "gaussian-linear", "--set", "name=3"], "the reward is named by the argument"),
    ],
)
def test_flags_that_cannot_work(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rfbench(*arguments) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
