"""A sweep on one machine: its devices, how its runs end with it, and what it says of those that failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rfbench.errors import InputError
from rfbench.sweeps.engine import Attempt
from rfbench.sweeps.jobs import Job, make_jobs
from rfbench.sweeps.local import explain_exit, make_lanes, num_cores, visible_gpus

LIFELINE = [sys.executable, "-m", "rfbench.sweeps.lifeline"]
WAITS = (
    "import signal, sys, time; signal.signal(15, lambda *_: (open(sys.argv[1], 'w').write('ended'), sys.exit(130)))\n"
)
# Short sleeps: a signal that comes between a line and a long sleep would be answered after it.
WAITS += "open(sys.argv[1], 'w').write('runs')\nfor _ in range(6000): time.sleep(0.1)"


@pytest.mark.parametrize(
    ("given", "seen", "names"),
    [
        (None, 2, ["0", "1"]),
        ("2,3", 2, ["2", "3"]),
        ("3, 1", 2, ["3", "1"]),
        ("GPU-8932f937,GPU-46915a82", 2, ["GPU-8932f937", "GPU-46915a82"]),
        ("MIG-a,MIG-b,MIG-b", 1, ["MIG-a", "MIG-b"]),  # torch sees the first alone
        ("1,-1,0", 1, ["1"]),
        ("", 0, []),
        ("0,1", 0, []),  # no driver
    ],
)
def test_devices_are_those_of_the_list_that_is_given(
    given: str | None, seen: int, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == names
    assert [lane.environment().get("CUDA_VISIBLE_DEVICES") for lane in make_lanes(len(names) or 1)] == (
        names or [given]
    )


def test_runs_on_several_gpus_have_them_to_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,6,7")
    assert [lane.gpus for lane in make_lanes(None, 2)] == [("2", "3"), ("5", "6")]
    assert [lane.gpus for lane in make_lanes(3, 0)] == [(), (), ()]
    with pytest.raises(InputError, match="--gpus 8 asks for more GPUs than the 5"):
        make_lanes(None, 8)


def test_cores_are_counted_where_the_system_cannot_say_which_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS
    assert num_cores() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert num_cores() == 1


def test_a_run_ends_when_the_sweep_is_killed(tmp_path: Path) -> None:
    """kill -9, as by a cluster that is out of memory: the sweep can do nothing any more."""
    file = tmp_path / "file"
    holder = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE); time.sleep(600)"
    sweep = subprocess.Popen([sys.executable, "-c", holder, *LIFELINE, sys.executable, "-c", WAITS, str(file)])
    wait_for(file, "runs")
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    wait_for(file, "ended")


@pytest.mark.parametrize(("code", "expected"), [("pass", 0), ("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 128 + 9)])
def test_the_lifeline_has_the_exit_code_of_what_it_holds(code: str, expected: int) -> None:
    command = [*LIFELINE, sys.executable, "-c", f"import os, sys; {code}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as held:
        assert held.wait(120) == expected


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (137, "killed by signal 9 (SIGKILL); the system does so where memory runs out"),
        (-9, "killed by signal 9"),
        (139, "killed by signal 11 (SIGSEGV)"),
        (1, "ended with code 1"),
        (130, "ended with code 130"),
    ],
)
def test_an_exit_code_is_put_in_words(code: int, words: str) -> None:
    assert words in explain_exit(code)


def job(tmp_path: Path) -> Job:
    (made,) = make_jobs(["optimum-gaussian"], ["prdp"], [0], tmp_path)
    made.folder.mkdir(parents=True)
    return made


def write(job: Job, **changes: object) -> None:
    shipped = Path(__file__).parent.parent / "results" / "reference" / "small-shapes" / "prdp" / "seed-0" / "run.json"
    (job.folder / "run.json").write_text(json.dumps(json.loads(shipped.read_text()) | changes))


def test_the_reason_is_that_of_this_attempt_not_what_an_earlier_one_left(tmp_path: Path) -> None:
    made = job(tmp_path)
    write(made, status="failed", error="yesterday's error")
    made.log.write_text("yesterday's last words\n")
    attempt = Attempt(made)
    assert attempt.outcome("it ended with code 1").error == "it ended with code 1, and printed nothing"
    with open(made.log, "a") as log:
        log.write("error: it is being written by another process\n")
    assert attempt.outcome("it ended with code 2").error == (
        "error: it is being written by another process (it ended with code 2)"
    )
    write(made, status="failed", error="today's error")
    assert attempt.outcome("it ended with code 1").error == "today's error"


def test_a_run_that_was_killed_is_not_said_to_have_failed_by_its_last_line(tmp_path: Path) -> None:
    made = job(tmp_path)
    attempt = Attempt(made)
    write(made, status="running")
    made.log.write_text("epoch 1/30  reward 0.9793  left 27s\n")
    assert attempt.outcome(explain_exit(137)).error == explain_exit(137)


def test_a_process_that_ends_well_without_finishing_its_run_has_failed(tmp_path: Path) -> None:
    made = job(tmp_path)
    attempt = Attempt(made)
    write(made, status="running")
    assert attempt.outcome("it ended with code 0").error == "it ended with code 0, and printed nothing"
    write(made, status="finished")
    assert attempt.outcome("it ended with code 0").error is None


@pytest.mark.parametrize(
    ("variations", "message"),
    [
        (["optimizer.learning_rate=1e-3,1e-3"], "1e-3 and 1e-3 are the same value"),
        (["optimizer.learning_rate=1e-3,0.001"], "1e-3 and 0.001 are the same value"),
        (["optimizer.learning_rate=x1,x1.0"], "x1 and x1.0 are the same value"),
        (["optimizer.betas=[0.9, 0.99],[0.90,0.99]"], "are the same value"),
        (["optimizer.learning_rate=x1,0.02"], "x1 and 0.02 are the same value"),  # what the table says
        (["images_per_prompt=8", "images_per_prompt=16"], "names a field twice"),
        (["config.beta=x1,x2", "config={beta = 8.0}"], "are one run under two names"),
    ],
)
def test_what_is_varied_twice_is_refused(variations: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make_jobs(["optimum-gaussian"], ["prdp"], [0], tmp_path, variations=variations)


def test_a_list_is_one_value(tmp_path: Path) -> None:
    varied = ["optimizer.betas=[0.9,0.99],[0.8,0.9]"]
    jobs = make_jobs(["optimum-gaussian"], ["prdp"], [0], tmp_path, variations=varied)
    assert [job.plan.settings.optimizer.betas for job in jobs] == [(0.9, 0.99), (0.8, 0.9)]
    assert len({job.folder for job in jobs}) == 2


def test_a_run_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names something twice: prdp, prdp"):
        make_jobs(["optimum-gaussian"], ["prdp", "prdp"], [0], tmp_path)
    suites = Path(__file__).parent.parent / "benchmarks" / "suites" / "optimum-gaussian.toml"
    with pytest.raises(InputError, match="two runs would share a folder"):
        make_jobs(["optimum-gaussian", str(suites)], ["prdp"], [0], tmp_path)


def test_several_processes_are_started_by_torchrun_and_held_to_their_number(tmp_path: Path) -> None:
    (made,) = make_jobs(["optimum-gaussian"], ["prdp"], [0], tmp_path, processes=2)
    command = " ".join(made.command())
    assert "-m torch.distributed.run --standalone --nproc-per-node 2 -m rfbench run prdp" in command
    assert "--set compute.processes=2" in command


def wait_for(file: Path, content: str) -> None:
    end = time.monotonic() + 120
    while not (file.exists() and file.read_text() == content):
        assert time.monotonic() < end, f"{file} never says {content!r}"
        time.sleep(0.05)
