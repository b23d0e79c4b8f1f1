"""A sweep on a real Slurm, with everything that happens to runs on a cluster, ends as it does on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from safetensors.torch import load_file

from rfbench.cli import exit_code

pytestmark = pytest.mark.slow

CLUSTER = Path(__file__).with_name("cluster.sh")
EPOCHS = 60
SLOW = """
import os, time
from rfbench.worlds.gaussian.reward import GaussianLinear

class SlowLinear(GaussianLinear):
    "GaussianLinear, and an epoch that takes long enough for things to happen in it."

    def __call__(self, images, prompts):
        time.sleep(float(os.environ.get("SECONDS_OF_A_REWARD", 0)))
        return super().__call__(images, prompts)
"""
DIFFERENT = {"phase_seconds", "started_at", "updated_at", "host", "job", "restart", "peak_memory_bytes"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One controller and one node of four CPUs, on this machine; one at a time, whatever runs beside this test."""
    if shutil.which("slurmctld") is None:
        pytest.skip("Slurm is not installed; on Debian: apt-get install --no-install-recommends slurm-wlm munge")
    if os.geteuid():
        pytest.skip("starting Slurm's daemons needs root")
    alone = FileLock(Path(tempfile.gettempdir()) / "rfbench-tests-slurm.lock")
    alone.acquire()
    subprocess.run([CLUSTER, "stop"], check=True)
    started = subprocess.run([CLUSTER, "start"], capture_output=True, text=True)
    if started.returncode:
        pytest.skip(f"Slurm does not start here: {started.stderr.strip()}")
    yield
    subprocess.run(["scancel", "--user=root"], check=False)
    subprocess.run([CLUSTER, "stop"], check=True)
    alone.release()


def test_preempted_timed_out_cancelled_and_left_alone(
    cluster: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SECONDS_OF_A_REWARD", "0.7")
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    (tmp_path / "slow.py").write_text(SLOW)
    settings = [f"epochs={EPOCHS}", "evaluation.every=20", "budget.reward_queries_per_epoch=32"]
    settings += ["reward.name=slow-linear", "compute.checkpoint_every=1"]
    options = ["--suite", "optimum-gaussian", "--plugin", "slow.py", *[p for s in settings for p in ("--set", s)]]
    sweep = ["sweep", "prdp", "ddpo", "--seeds", "0-3", "--out", "out", *options]
    on_slurm = [*sweep, "--on", "slurm", "--gpus", "0", "--jobs", "2", "--slurm", "time=30", "--slurm", "warning=60"]

    # the login process is killed as soon as it has submitted
    login = subprocess.Popen([sys.executable, "-m", "rfbench", *on_slurm, "--wait"])
    wait_until(lambda: len(tasks()) == 8, "eight tasks in the queue")
    login.send_signal(signal.SIGKILL)
    assert login.wait() == -signal.SIGKILL
    array = next(iter(tasks())).partition("_")[0]

    # the first two run: one is preempted, and then one of them comes near its limit; a third is cancelled
    first, second, third = (run(out, index) for index in (0, 1, 2))
    wait_until(lambda: epoch(first) >= 2 and epoch(second) >= 2, "both runs in their epochs")
    assert sum(state == "RUNNING" for state in tasks().values()) == 2  # --jobs 2
    subprocess.run(["sbatch", "-p", "urgent", "-c", "3", "-o", "/dev/null", "--wrap", "sleep 3"], check=True)
    wait_until(lambda: "interrupted" in (status(first), status(second)), "a run that is preempted")
    stays, number = (first, 0) if status(second) == "interrupted" else (second, 1)
    subprocess.run(["scontrol", "update", f"JobId={array}_{number}", f"TimeLimit={minutes(array, number)}"], check=True)
    wait_until(lambda: status(stays) == "interrupted", "a run that is near its limit")
    assert epoch(stays) < EPOCHS
    subprocess.run(["scontrol", "update", f"JobId={array}_{number}", "TimeLimit=30"], check=True)
    wait_until(lambda: epoch(third) >= 1, "a third run")
    show("while they run", [sys.executable, "-m", "rfbench", "watch", "out"], capfd)
    subprocess.run(["scancel", f"{array}_2"], check=True)
    wait_until(lambda: status(third) == "interrupted" and f"{array}_2" not in tasks(), "a run that is cancelled")

    # the same command submits what is neither finished nor queued: what was cancelled
    capfd.readouterr()
    assert exit_code([*on_slurm, "--slurm", "warning=60"]) == 0
    assert "submitted 1 run as Slurm job" in capfd.readouterr().out
    wait_until(lambda: not tasks(), "an empty queue", 1200)
    show("when all is done", [sys.executable, "-m", "rfbench", "watch", "out"], capfd)

    log = {name: first.parent.parent.joinpath(name).read_text() for name in ("prdp/seed-0.log", "ddpo/seed-0.log")}
    with capfd.disabled():
        print(log["prdp/seed-0.log"], log["ddpo/seed-0.log"])
    assert any(re.search("the time limit (is near|was reached): it goes back", text) for text in log.values())
    assert all(re.search(r"restart \d", text) for text in log.values())  # appended to, not replaced
    assert "stopped by Slurm (" in (out / "optimum-gaussian" / "prdp" / "seed-1.log").read_text()

    monkeypatch.delenv("SECONDS_OF_A_REWARD")
    assert exit_code([*sweep, "--jobs", "2", "--gpus", "0", "--out", "here"]) == 0
    for index in range(8):
        same_run(run(out, index), run(tmp_path / "here", index))
    restarted = [json.loads((run(out, index) / "run.json").read_text())["restart"] for index in range(8)]
    assert sum(bool(count) for count in restarted) == 2


def test_what_slurm_refuses_is_told_and_nothing_is_left_behind(
    cluster: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", "prdp", "--suite", "optimum-gaussian", "--seeds", "0", "--out", str(tmp_path), "--on", "slurm"]
    assert exit_code([*command, "--gpus", "0", "--slurm", "partition=nowhere"]) == 2
    said = capfd.readouterr().err
    assert "invalid partition specified: nowhere" in said
    assert "nothing was submitted" in said
    assert [path.name for path in (tmp_path / ".sweeps").iterdir()] == [".lock"]


def test_other_code_is_refused_and_a_task_that_does_not_find_its_folder_says_so_with_its_host(
    cluster: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["sweep", "prdp", "--suite", "optimum-gaussian", "--seeds", "0", "--out", "out", "--on", "slurm"]
    assert exit_code([*command, "--gpus", "0", "--slurm", "hold=true"]) == 0
    (name,) = (path.name for path in (tmp_path / "out" / ".sweeps").iterdir() if path.is_dir())
    (job,) = tasks()
    file = tmp_path / "out" / ".sweeps" / name / "tasks.json"
    content = file.read_text()
    file.write_text(json.dumps(json.loads(content) | {"code": "rfbench 9.9, commit abc"}))
    assert exit_code([*command, "--gpus", "0"]) == 2  # what is compared must be of one code
    said = capfd.readouterr().err
    assert "queued or running with other code: rfbench 9.9, commit abc; this is rfbench" in said
    file.write_text(content)
    assert exit_code([*command, "--gpus", "0"]) == 0
    assert "1 are queued already" in capfd.readouterr().out
    (tmp_path / "out").rename(tmp_path / "a disk of the login node")
    subprocess.run(["scontrol", "release", job.partition("_")[0]], check=True)
    wait_until(lambda: not tasks(), "a task that ends")
    host = subprocess.run(["hostname"], capture_output=True, text=True).stdout.strip()
    said = f"{host} does not see {tmp_path}/out/.sweeps/{name}/tasks.json"
    assert said in (tmp_path / f"{name}.err").read_text()
    assert said in subprocess.run(["squeue", "-ht", "all", "-o", "%k"], capture_output=True, text=True).stdout


def run(out: Path, index: int) -> Path:
    """The folder of a task: seed by seed, first PRDP."""
    return out / "optimum-gaussian" / ("prdp", "ddpo")[index % 2] / f"seed-{index // 2}"


def tasks() -> dict[str, str]:
    """The sweep's tasks that are queued or running, and how they are."""
    lines = subprocess.run(["squeue", "-hr", "-o", "%i %T %j"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in lines.splitlines()]
    return {job: state for job, state, name in rows if name.startswith("rfbench-")}


def minutes(array: str, number: int) -> int:
    """A time limit that is less than a minute away: Slurm looks every half minute, and warns a minute before."""
    command = ["squeue", "-h", "-j", f"{array}_{number}", "-o", "%M"]
    *_, before, _ = ("0:" + subprocess.run(command, capture_output=True, text=True, check=True).stdout).split(":")
    return int(before) + 1


def status(folder: Path) -> str:
    return str(record(folder).get("status"))


def epoch(folder: Path) -> int:
    return int(record(folder).get("epoch", 0))


def record(folder: Path) -> dict[str, object]:
    path = folder / "run.json"
    return json.loads(path.read_text()) if path.exists() else {}


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"no {what} within {seconds:.0f} s: {tasks()}"
        time.sleep(0.5)


def show(when: str, command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """What a user sees, for whoever runs this by hand."""
    shown = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "160"})
    with capfd.disabled():
        print(f"\n--- {when}\n{shown.stdout}{shown.stderr}")
    assert shown.returncode == 0


def same_run(one: Path, other: Path) -> None:
    """Records byte for byte, but for seconds and where they were made."""
    ours, theirs = record(one), record(other)
    assert ours["status"] == "finished"
    assert {key: ours[key] for key in ours.keys() - DIFFERENT} == {
        key: theirs[key] for key in theirs.keys() - DIFFERENT
    }
    assert (one / "evals.jsonl").read_bytes() == (other / "evals.jsonl").read_bytes()
    assert without_seconds(one) == without_seconds(other)
    newest = f"checkpoints/epoch-{EPOCHS:06d}/weights.safetensors"
    mine, here = load_file(one / newest), load_file(other / newest)
    assert mine.keys() == here.keys()
    assert all(mine[name].equal(here[name]) for name in mine)


def without_seconds(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith("_seconds")} for line in lines]
