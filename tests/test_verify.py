"""`rfbench verify`: a recorded run is repeated, and what differs from its records is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rfbench.cli import exit_code
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Suite
from tests import tiny
from tests.runs import run

Change = Callable[[dict], None]


@pytest.fixture(scope="module")
def recorded(pipeline: Path, prompt_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny.make_suite(pipeline, prompt_file), tmp_path_factory.mktemp("recorded"), "ddpo")


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """A copy of the run's records alone, as a repository ships them."""
    copy = tmp_path / "shipped"
    copy.mkdir()
    for name in ("run.json", "metrics.jsonl", "evals.jsonl"):
        shutil.copy(recorded / name, copy)
    return copy


def rewrite(file: Path, number: int, **changes: float) -> None:
    lines = file.read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | changes)
    file.write_text("\n".join(lines) + "\n")


def test_a_run_is_repeated_to_the_last_digit_and_nothing_is_written_to_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert exit_code(["verify", str(folder), "--epochs", "2"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "numbers of the first 2 epochs are the same, to the last digit" in printed
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_last_digit_agrees_and_a_curve_of_another_run_does_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = folder / "metrics.jsonl"
    mean = json.loads(metrics.read_text().splitlines()[0])["reward_mean"]
    rewrite(metrics, 0, reward_mean=mean * (1 + 1e-6))
    assert exit_code(["verify", str(folder)]) == 0
    assert "agrees: every curve is within its tolerance" in capsys.readouterr().out
    rewrite(metrics, 0, reward_mean=mean * 1.01)
    assert exit_code(["verify", str(folder)]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "disagrees: a curve is farther off than its tolerance" in printed
    assert f"reward_mean {mean * 1.01:.4g} {mean:.4g} 5" in printed


def test_an_evaluation_that_was_changed_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evals = folder / "evals.jsonl"
    number, line = next(
        (number, line)
        for number, line in enumerate(map(json.loads, evals.read_text().splitlines()))
        if line["epoch"] == 2 and line["measure"] == "diversity"
    )
    rewrite(evals, number, mean=line["mean"] * 2)
    assert exit_code(["verify", str(folder), "--epochs", "1"]) == 0  # it is of the second
    assert exit_code(["verify", str(folder), "--epochs", "2"]) == 1
    assert f"{line['evaluation_set']} diversity" in capsys.readouterr().out


def _another_reward(record: dict) -> None:
    for reward in record["rewards"].values():
        reward["version"] = "an older one"


def _another_file(record: dict) -> None:
    record["inputs"] = {name: "0" * 64 for name in record["inputs"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_another_reward, "was 'an older one' and is 'libjpeg"),
        (_another_file, f"was '{'0' * 64}' and is"),
    ],
    ids=["another version of the reward", "another prompt file"],
)
def test_what_is_not_what_the_run_was_made_with_is_named(
    folder: Path, change: Change, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((folder / "run.json").read_text())
    change(record)
    (folder / "run.json").write_text(json.dumps(record))
    assert exit_code(["verify", str(folder)]) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert message in printed
    assert "cannot be repeated here" in printed


def test_more_epochs_than_were_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["verify", str(folder), "--epochs", "9"]) == 2
    assert "--epochs is 9, but" in capsys.readouterr().err


def test_a_run_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["verify", str(tmp_path)]) == 2
    assert "run.json" in capsys.readouterr().err


def test_the_repeated_run_leaves_no_trackers_and_no_export(suite: Suite, tmp_path: Path) -> None:
    compute = suite.compute.model_copy(update={"export": True})
    path = train(tiny.plan(suite.model_copy(update={"compute": compute, "epochs": 1}), "rwr"), tmp_path, Quiet())
    before = sorted(path.rglob("*"))
    assert exit_code(["verify", str(path)]) == 0
    assert sorted(path.rglob("*")) == before
