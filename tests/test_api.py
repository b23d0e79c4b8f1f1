"""The front door for Python: the examples of its docstrings, and what it must not cost or hide."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import rfbench
from rfbench import api
from rfbench.core import Reward
from rfbench.errors import InputError
from rfbench.plugins import registry
from tests.commands import rfbench as command
from tests.report.run_writer import write_run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the results of two algorithms on two seeds."""
    monkeypatch.chdir(tmp_path)
    for algorithm, end in (("prdp", 5.0), ("ddpo", 4.0)):
        for seed in range(2):
            write_run(tmp_path / "results", algorithm, seed, [1.0, 2.0, end], suite={"name": "small-shapes"})
    return tmp_path


@pytest.mark.parametrize(
    "function",
    [api.run, api.load, api.compare, api.figures, pytest.param(api.sweep, marks=pytest.mark.slow), registry.register],
)
def test_the_examples_of_the_docstrings(function: object, folder: Path) -> None:
    (example,) = doctest.DocTestFinder().find(function)
    assert doctest.DocTestRunner().run(example).failed == 0


def test_the_import_is_light() -> None:
    heavy = "{'torch', 'diffusers', 'polars', 'matplotlib', 'pydantic', 'typer'}"
    code = f"import sys, rfbench; assert 'run' in dir(rfbench); print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_to_read_results_imports_no_torch(folder: Path) -> None:
    code = (
        "import sys, rfbench; rfbench.compare('results'); rfbench.load('results');"
        "print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert found.stdout == "[]\n"


def test_a_name_that_it_lacks() -> None:
    with pytest.raises(AttributeError, match="no attribute 'train'; it has Result, Sink, compare, figures, load"):
        rfbench.train  # noqa: B018  # the look-up is what is tested


def test_python_and_the_command_line_make_the_same_run(suite_file: Path, tmp_path: Path) -> None:
    overrides = {"epochs": 1, "algorithms.prdp.images_per_prompt": 4, "algorithms.prdp.config": {"beta": 0.5}}
    result = rfbench.run("prdp", str(suite_file), 3, overrides, tmp_path / "python", quiet=True)
    settings = ["epochs=1", "algorithms.prdp.images_per_prompt=4", "algorithms.prdp.config.beta=0.5"]
    sets = [part for text in settings for part in ("--set", text)]
    options = ["--suite", suite_file, "--seed", "3", "--out", tmp_path / "command", *sets]
    assert command("run", "prdp", *options) == 0
    other = tmp_path / "command" / "mine" / "prdp" / "seed-3"
    assert (result.folder / "evals.jsonl").read_bytes() == (other / "evals.jsonl").read_bytes()
    assert result.record.status == "finished"
    assert result.metrics["epoch"].to_list() == [1]
    assert sorted(set(result.evaluations["epoch"])) == [0, 1]


def test_errors_are_those_of_the_commands(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown algorithm 'prpd'"):
        rfbench.run("prpd", suite="tiny-shapes", out=tmp_path)
    with pytest.raises(InputError, match=r"did you mean algorithms\.prdp\.optimizer\.learning_rate, algo"):
        rfbench.run("prdp", suite="tiny-shapes", overrides={"optimizer.learning_rate": 0.1}, out=tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        rfbench.load(tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_registered() -> None:
    class Unfinished(Reward):
        unit = "share"

    with pytest.raises(InputError, match=r"unknown kind 'reward' \(did you mean 'rewards'\?\)"):
        rfbench.plugins.register("reward", "mine", Unfinished)
    with pytest.raises(InputError, match="'mine' is <class 'int'>, not a subclass of Reward"):
        rfbench.plugins.register("rewards", "mine", int)
    with pytest.raises(InputError, match="Unfinished does not fill in __call__"):
        rfbench.plugins.register("rewards", "mine", Unfinished)
    assert "mine" not in registry.names("rewards")
