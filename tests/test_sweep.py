"""Sweeps: every run once, whatever happens to some of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rfbench.cli import exit_code
from rfbench.errors import InputError
from rfbench.sweeps.jobs import make_jobs

BROKEN = """
from rfbench.core.algorithm import Algorithm, Cost
from rfbench.suite.settings import Settings


class Broken(Algorithm):
    "Fails at once."

    class Config(Settings):
        "None."

    def cost(self, num_prompts, images_per_prompt, num_steps):
        return Cost(0, 0)

    def update(self, rollout, learner):
        raise RuntimeError("the sky fell")
"""


@pytest.mark.slow
def test_a_failed_run_does_not_stop_the_others_and_a_second_sweep_does_only_what_is_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN)
    command = ["sweep", "broken", "rwr", "--suite", "optimum-gaussian", "--seeds", "3", "--out", str(tmp_path / "out")]
    for setting in ("name=mine", "epochs=2", "algorithms.broken.images_per_prompt=16"):
        command += ["--set", setting]
    command += ["--plugin", str(plugin), "--jobs", "2"]

    assert exit_code(command) == 1
    printed = capfd.readouterr()
    assert "1 of 2 runs finished, 1 failed" in printed.out
    assert "mine broken seed 3 failed: RuntimeError: the sky fell" in printed.out
    before = _run_files(tmp_path / "out")
    assert {path.parent.name for path in before if path.parent.parent.name == "rwr"} == {"seed-3"}

    assert exit_code(command) == 1
    assert "1 of 2 runs finished (1 of them before), 1 failed" in capfd.readouterr().out
    after = _run_files(tmp_path / "out")
    assert [after[path] == content for path, content in before.items() if path.parent.parent.name == "rwr"] == [True]


def test_the_dry_run_counts_what_the_unfinished_runs_would_spend(
    suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--suite", str(suite_file), "--out", str(tmp_path / "out")]
    assert exit_code(["run", "rwr", *options, "--seed", "1"]) == 0
    capsys.readouterr()
    assert exit_code(["sweep", "rwr", *options, "--seeds", "0-2", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 3 runs finished (1 of them before)" in printed
    [(run, content)] = _run_files(tmp_path / "out").items()
    assert run.parent.name == "seed-1"
    counters = json.loads(content)["counters"]
    for name in ("reward_queries", "denoiser_forwards", "denoiser_backwards"):
        assert f" {2 * counters[name]:,} " in printed


@pytest.mark.slow
def test_an_interrupted_sweep_interrupts_its_runs_and_goes_on_when_it_is_given_again(
    suite_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["sweep", "rwr", "--suite", str(suite_file), "--seeds", "1", "--out", str(out), "--set", "epochs=12"]
    process = subprocess.Popen([sys.executable, "-m", "rfbench", *command], env={**os.environ, "OMP_NUM_THREADS": "1"})
    run_file = out / "mine" / "rwr" / "seed-1" / "run.json"
    while process.poll() is None and not (run_file.exists() and json.loads(run_file.read_text())["epoch"] > 0):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == 130
    interrupted = json.loads(run_file.read_text())
    assert interrupted["status"] == "interrupted"
    assert 0 < interrupted["epoch"] < 12

    assert exit_code(command) == 0
    assert "1 of 1 runs finished" in capfd.readouterr().out
    finished = json.loads(run_file.read_text())
    assert finished["status"] == "finished"
    assert finished["counters"]["reward_queries"] == 12 * 8  # not one epoch twice


def test_variations_multiply_what_each_table_says(tmp_path: Path) -> None:
    jobs = make_jobs(
        ["small-shapes"],
        ["prdp", "dpok"],
        [0, 1],
        tmp_path,
        variations=["optimizer.learning_rate=x0.5,x1,x3", "images_per_prompt=4"],
    )
    assert [job.label for job in jobs[:6]] == [
        "prdp-learning_rate-x0_5-images_per_prompt-4",
        "prdp-images_per_prompt-4",
        "prdp-learning_rate-x3-images_per_prompt-4",
        "dpok-learning_rate-x0_5-images_per_prompt-4",
        "dpok-images_per_prompt-4",
        "dpok-learning_rate-x3-images_per_prompt-4",
    ]
    assert [job.seed for job in jobs] == [0] * 6 + [1] * 6
    for job, expected in ((jobs[3], 1.5e-5), (jobs[5], 9e-5)):
        rate = next(text for text in job.arguments if "learning_rate=" in text)
        assert float(rate.partition("=")[2]) == pytest.approx(expected)
    assert jobs[5].folder == tmp_path / "small-shapes" / "dpok-learning_rate-x3-images_per_prompt-4" / "seed-0"


def test_without_names_a_sweep_takes_every_table_seed_by_seed(tmp_path: Path) -> None:
    jobs = make_jobs(["small-shapes", "large-shapes"], [], [0, 1], tmp_path)
    first = [job for job in jobs if job.seed == 0]
    assert jobs[: len(first)] == first
    assert {job.label for job in first if job.suite == "large-shapes"} >= {"prdp", "ddpo", "dpok", "rwr", "ddpo-group"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variations": ["optimizer.learning_rate"]}, "expected KEY=V,V"),
        ({"variations": ["optimizer.learning_rate=xx"]}, "'x' is not a number"),
        (
            {"variations": ["sample_from=x3"]},
            "x3 multiplies what algorithms.prdp says, and sample_from is 'policy' there",
        ),
        ({"seeds": [1, 1]}, "--seeds names something twice"),
        ({"labels": ["prpd"]}, "did you mean 'prdp'"),
    ],
)
def test_bad_sweeps_are_refused_before_anything_starts(options: dict[str, list], message: str, tmp_path: Path) -> None:
    arguments = {"suites": ["small-shapes"], "labels": ["prdp"], "seeds": [0]} | options
    with pytest.raises(InputError, match=message):
        make_jobs(out=tmp_path, **arguments)


def test_finished_runs_of_other_settings_are_not_taken_for_these(tmp_path: Path) -> None:
    shipped = Path(__file__).parent.parent / "results" / "reference"
    assert make_jobs(["small-shapes"], ["prdp"], [0], shipped)[0].finished
    with pytest.raises(
        InputError, match=r"holds a finished run with other settings: .*prdp.config.beta was 10.0 and is 3.0"
    ):
        make_jobs(["small-shapes"], ["prdp"], [0], shipped, overrides=["algorithms.prdp.config.beta=3.0"])


def _run_files(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("run.json")}
