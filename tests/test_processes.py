"""One, two and three processes give the same samples and rewards, and the same weights to float tolerance.

Most of them are forked from one that has imported everything: what torchrun sets is set for them. One test, and the
one of two nodes, start torchrun itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rfbench.cli import exit_code
from tests import tiny
from tests.forked import on_processes

pytestmark = pytest.mark.slow


def arguments(suite: Path, out: Path, *options: str, label: str = "prdp") -> list[str]:
    pairs = ["--set", f"algorithms.{label}.images_per_prompt=2"]
    return ["run", label, "--suite", str(suite), "--out", str(out), *pairs, *options]


@dataclass(frozen=True)
class Ended:
    """What became of several processes: their exit codes, and all that they wrote to stderr."""

    codes: list[int | None]
    errors: str


def rfbench(rank: int, command: list[str], logs: Path) -> int:
    """The exit code of a command whose stderr goes into a file."""
    os.dup2(os.open(logs / f"{rank}.txt", os.O_WRONLY | os.O_CREAT), 2)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    code = exit_code(command)
    sys.stderr.flush()
    return code


def together(processes: int, command: list[str], logs: Path) -> Ended:
    """Runs `rfbench` in several processes at once, joined by gloo as under torchrun."""
    logs.mkdir(parents=True, exist_ok=True)
    results = on_processes(processes, rfbench, command, logs)
    errors = "".join(path.read_text() for path in sorted(logs.glob("*.txt")))
    return Ended([result and result[1] for result in results], errors)


def torchrun(processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    command = ("torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *command)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, timeout=600
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (newest,) = (folder / "checkpoints").iterdir()
    return load_file(newest / "weights.safetensors")


@pytest.mark.parametrize("label", tiny.ALGORITHMS)
def test_number_of_processes_does_not_matter(suite_file: Path, tmp_path: Path, label: str) -> None:
    """A run without a launcher is the measure; three processes share four prompts unevenly."""
    assert exit_code(arguments(suite_file, tmp_path / "1", label=label)) == 0
    for processes in (2, 3):
        command = arguments(suite_file, tmp_path / str(processes), label=label)
        ended = together(processes, command, tmp_path / f"logs-{processes}")
        assert ended.codes == [0] * processes, ended.errors
    first, *others = (tmp_path / str(processes) / "mine" / label / "seed-0" for processes in (1, 2, 3))
    records = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    for other in others:
        for ours, theirs in zip(records, (other / "metrics.jsonl").read_text().splitlines(), strict=True):
            found = json.loads(theirs)
            assert found["reward_mean"] == pytest.approx(ours["reward_mean"], abs=1e-6)
            for counter in ("reward_queries", "denoiser_forwards", "denoiser_backwards", "optimizer_steps"):
                assert found[counter] == ours[counter]
        for name, value in weights(first).items():
            torch.testing.assert_close(weights(other)[name], value, atol=2e-5, rtol=1e-3)
        assert [p.name for p in sorted((other / "samples").iterdir())] == [
            p.name for p in sorted((first / "samples").iterdir())
        ]


def test_resume_on_the_same_number_and_refusal_on_another(suite_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = together(2, arguments(suite_file, tmp_path / "whole"), tmp_path / "logs-whole")
    assert whole.codes == [0, 0], whole.errors
    first = together(2, arguments(suite_file, out), tmp_path / "logs-first")
    assert first.codes == [0, 0], first.errors
    record_path = out / "mine" / "prdp" / "seed-0" / "run.json"
    record = json.loads(record_path.read_text())
    record_path.write_text(json.dumps(record | {"status": "interrupted"}))
    resume = arguments(suite_file, out, "--resume")
    refused = together(1, resume, tmp_path / "logs-refused")
    assert refused.codes == [2]
    assert "processes was 2 and is 1" in refused.errors
    resumed = together(2, resume, tmp_path / "logs-resumed")
    assert resumed.codes == [0, 0], resumed.errors
    ours, theirs = weights(record_path.parent), weights(tmp_path / "whole" / "mine" / "prdp" / "seed-0")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_another_number_of_processes_than_asked_for(
    suite_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert exit_code(arguments(suite_file, tmp_path, "--set", "compute.processes=2")) == 2
    assert "2 processes were asked for and 1 were launched" in " ".join(capsys.readouterr().err.split())


def test_more_processes_than_prompts(suite_file: Path, tmp_path: Path) -> None:
    ended = together(4, arguments(suite_file, tmp_path), tmp_path / "logs")
    assert ended.codes == [2] * 4
    assert "evaluation.sets.seen has 3 prompts to share out among 4 processes" in ended.errors


def test_torchrun_ends_a_run_whose_process_died_and_goes_on_with_it(suite_file: Path, tmp_path: Path) -> None:
    """The launcher stops the others, instead of a hang; the folder can be resumed."""
    poison = tmp_path / "poison.py"
    poison.write_text(
        "import os, signal, sys\n"
        "from rfbench.core.learner import Learner\n"
        "from rfbench.cli import main\n"
        "step = Learner.step\n"
        "def die(self):\n"
        "    if os.environ['RANK'] == '1':\n"
        f"        os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "    step(self)\n"
        "Learner.step = die\n"
        "main(sys.argv[1:])\n"
    )
    killed = torchrun(2, str(poison), *arguments(suite_file, tmp_path))
    assert killed.returncode != 0
    assert "SIGKILL" in killed.stderr
    resumed = together(2, arguments(suite_file, tmp_path, "--resume"), tmp_path / "logs")
    assert resumed.codes == [0, 0], resumed.errors
    assert json.loads((tmp_path / "mine" / "prdp" / "seed-0" / "run.json").read_text())["processes"] == 2
