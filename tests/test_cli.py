"""The commands as a user types them: exit codes, messages, and what they do not import."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rfbench.cli.scaffold import new_package
from rfbench.errors import InputError
from tests.commands import rfbench


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["doctor", "-h"], ["compare", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """No torch, no suite, no table of results: that is why help answers at once."""
    heavy = {"torch", "numpy", "polars", "rfbench.suite.suite"}
    code = f"import sys, rfbench.cli as c; c.exit_code({arguments}); print({heavy} & set(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == "set()\n"


def test_run_then_compare(suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results"
    for label in ("prdp", "ddpo"):
        assert rfbench("run", label, "--suite", suite_file, "--out", out) == 0
    folder = out / "mine" / "prdp" / "seed-0"
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["suite"]["algorithms"].keys() == {"prdp"}
    assert record["versions"]["torch"]
    assert record["counters"]["reward_queries"] == 16
    index = json.loads((folder / "samples" / "index.json").read_text())
    assert len(index["prompts"]["seen"]) == 3
    assert "epoch 2/2  batch reward" in capsys.readouterr().out
    assert rfbench("compare", out) == 0
    assert "prdp" in capsys.readouterr().out
    assert (out / "comparison" / "comparison.csv").exists()
    assert not list((out / "comparison").glob("*.png"))  # drawing takes most of the time
    assert rfbench("compare", out, "--figures") == 0
    assert (out / "comparison" / "comparison.png").exists()


def test_dry_run_counts_what_a_run_spends(suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rfbench("run", "ddpo", "--suite", suite_file, "--out", tmp_path / "r", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert not (tmp_path / "r").exists()
    assert rfbench("run", "ddpo", "--suite", suite_file, "--out", tmp_path / "r") == 0
    counters = json.loads((tmp_path / "r" / "mine" / "ddpo" / "seed-0" / "run.json").read_text())["counters"]
    for name in ("reward_queries", "denoiser_forwards", "denoiser_backwards"):
        assert f"{counters[name]:,}" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "prpd", "--suite", "tiny-shapes"], "unknown algorithm 'prpd' (did you mean 'prdp'"),
        (["run", "prdp", "--suite", "tiny-shape"], "unknown suite 'tiny-shape' (did you mean 'tiny-shapes'"),
        (["run", "prdp", "--suite", "tiny-shapes", "--set", "epoch=1"], "unknown key epoch (did you mean 'epochs'?)"),
        (["run", "prdp", "--suite", "tiny-shapes", "--resume", "--overwrite"], "give one of them"),
        (["run", "prdp"], "Missing option"),
        (["list", "suite"], "cannot list 'suite' (did you mean 'suites'?)"),
        (["compare", "no-such-folder"], "no-such-folder"),
    ],
)
def test_bad_input_exits_with_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rfbench(*arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("kind", ["algorithms", "suites", "rewards", "models", "prompts"])
def test_list(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rfbench("list", kind) == 0
    known = {
        "algorithms": "prdp",
        "suites": "tiny-shapes",
        "rewards": "shapes-gold",
        "models": "shapes",
        "prompts": "shapes",
    }
    assert known[kind] in capsys.readouterr().out


@pytest.mark.slow
def test_ctrl_c_exits_with_130_and_leaves_a_resumable_folder(suite_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rfbench", "run", "prdp", "--suite", str(suite_file), "--set", "epochs=500"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    metrics = tmp_path / "mine" / "prdp" / "seed-0" / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "--resume goes on" in error
    assert json.loads((metrics.parent / "run.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My_Method", "'My_Method' cannot name an algorithm: use lower-case words joined by hyphens"),
        ("none", "'none' cannot name an algorithm"),
        ("prdp", "an algorithm 'prdp' is installed already"),
        ("taken", "taken exists already"),
    ],
)
def test_names_that_a_new_algorithm_cannot_have(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match=message):
        new_package("algorithm", name, tmp_path / name)
