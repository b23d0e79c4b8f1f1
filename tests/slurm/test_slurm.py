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
from rfbench.sweeps.slurm.queue import task_states

pytestmark = pytest.mark.slow

CLUSTER = Path(__file__).with_name("cluster.sh")
EPOCHS = 40
SLOW = """
import os, time
from rfbench.worlds.gaussian.reward import GaussianLinear

class SlowLinear(GaussianLinear):
    "GaussianLinear, and while the file SLOWLY exists an epoch that takes long enough for things to happen in it."

    def __call__(self, images, prompts):
        if os.path.exists(os.environ.get("SLOWLY", "")):
            time.sleep(3)
        return super().__call__(images, prompts)
"""
DIFFERENT = {"phase_seconds", "started_at", "updated_at", "host", "job", "restart", "peak_memory_bytes"}


@pytest.fixture(scope="module")
def controller() -> Iterator[None]:
    """One controller and one node, on this machine; one at a time, whatever runs beside this test."""
    if shutil.which("slurmctld") is None:
        pytest.skip("Slurm is not installed; on Debian: apt-get install --no-install-recommends slurm-wlm munge")
    if os.geteuid():
        pytest.skip("starting Slurm's daemons needs root")
    alone = FileLock(Path(tempfile.gettempdir()) / "rfbench-tests-slurm.lock")
    alone.acquire()
    subprocess.run([CLUSTER, "stop"], check=True)
    subprocess.run([CLUSTER, "start"], check=True)
    yield
    subprocess.run([CLUSTER, "stop"], check=True)
    alone.release()


@pytest.fixture
def cluster(controller: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder to submit from, with the plugin of slow epochs; the queue is empty before and after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SLOWLY", str(tmp_path / "slowly"))
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "slowly").touch()
    yield tmp_path
    subprocess.run(["scancel", "--user=root"], check=True)
    wait_until(lambda: not tasks(), "an empty queue")


def test_preempted_timed_out_cancelled_and_left_alone(cluster: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = cluster / "out"
    settings = [f"epochs={EPOCHS}", "evaluation.every=20", "budget.reward_queries_per_epoch=32"]
    settings += ["reward.name=slow-linear", "compute.checkpoint_every=50"]
    options = ["--suite", "optimum-gaussian", "--plugin", "slow.py", *[p for s in settings for p in ("--set", s)]]
    sweep = ["sweep", "prdp", "ddpo", "--seeds", "0-3", "--out", "out", *options, "--on", "slurm", "--gpus", "0"]
    sweep += ["--jobs", "2", "--slurm", "time=30", "--slurm", "warning=60"]
    rfbench = [sys.executable, "-m", "rfbench"]

    # the login process is killed as soon as it has submitted
    login = subprocess.Popen([*rfbench, *sweep, "--wait"])
    wait_until(lambda: len(tasks()) == 8, "eight tasks in the queue")
    login.send_signal(signal.SIGKILL)
    assert login.wait() == -signal.SIGKILL
    array = next(iter(tasks())).partition("_")[0]

    # the first two run: one is preempted, and the other one comes near its limit
    first, second, third = (run(out, index) for index in (0, 1, 2))
    wait_until(lambda: epoch(first) >= 2 and epoch(second) >= 2, "both runs in their epochs")
    assert running() == 2  # --jobs 2
    subprocess.run(["sbatch", "-p", "urgent", "-c", "3", "-o", "/dev/null", "--wrap", "sleep 3"], check=True)
    wait_until(lambda: "interrupted" in (status(first), status(second)), "a run that is preempted")
    stays, number = (first, 0) if status(second) == "interrupted" else (second, 1)
    limited = f"{array}_{number}"
    subprocess.run(["scontrol", "update", f"JobId={limited}", f"TimeLimit={minutes(limited)}"], check=True)
    wait_until(lambda: tasks()[limited] == "PENDING", "a run that comes near its limit and is queued again")
    assert (status(stays), epoch(stays) < EPOCHS) == ("interrupted", True)
    subprocess.run(["scontrol", "update", f"JobId={limited}", "TimeLimit=30"], check=True)

    # a third is cancelled
    wait_until(lambda: epoch(third) >= 1, "a third run")
    assert running() <= 2
    show("while they run", [*rfbench, "watch", "out"], capfd)
    subprocess.run(["scancel", f"{array}_2"], check=True)
    wait_until(lambda: status(third) == "interrupted" and f"{array}_2" not in tasks(), "a run that is cancelled")

    # the same command submits what is neither finished nor queued: what was cancelled
    (cluster / "slowly").unlink()
    capfd.readouterr()
    assert exit_code(sweep) == 0
    assert "submitted 1 run as Slurm job" in capfd.readouterr().out

    # meanwhile the same runs are made here
    for index in range(8):
        algorithm, seed = place(index)
        assert exit_code(["run", algorithm, "--seed", str(seed), "--out", "here", *options]) == 0
    wait_until(lambda: not tasks(), "an empty queue", 1200)
    show("when all is done", [*rfbench, "watch", "out"], capfd)

    logs = [run(out, index).with_name(f"{run(out, index).name}.log").read_text() for index in range(3)]
    with capfd.disabled():
        print(*(line for log in logs for line in log.splitlines() if line.startswith(("[", "interr"))), sep="\n")
    assert "the time limit is near: it goes back into the queue" in logs[number]
    assert all(re.search(r"restart \d", log) for log in logs[:2])  # appended to, not replaced
    assert "stopped by Slurm (" in logs[2]

    for index in range(8):
        same_run(run(out, index), run(cluster / "here", index))
    assert [bool(record(run(out, index))["restart"]) for index in range(8)] == [True, True, *[False] * 6]


def test_processes_of_a_run_stop_together_when_its_time_limit_is_near(cluster: Path) -> None:
    """On two GPUs, as Slurm has it: the warning goes through torchrun to both processes."""
    settings = ["epochs=20", "reward.name=slow-linear", "budget.reward_queries_per_epoch=32"]
    settings += ["compute.checkpoint_every=50", "compute.device=cpu"]
    command = ["sweep", "prdp", "--suite", "optimum-gaussian", "--seeds", "0", "--out", "out", "--on", "slurm"]
    command += ["--gpus", "2", "--plugin", "slow.py", *[part for setting in settings for part in ("--set", setting)]]
    assert exit_code(command) == 0
    (job,) = tasks()
    folder = run(cluster / "out", 0)
    wait_until(lambda: epoch(folder) >= 1, "a run in its epochs")
    subprocess.run(["scancel", "--batch", "--signal=USR2", job], check=True)  # as Slurm warns of the limit
    wait_until(lambda: tasks()[job] == "PENDING", "a run that is queued again")
    stopped = record(folder)
    assert (stopped["status"], stopped["processes"]) == ("interrupted", 2)
    assert (folder / "checkpoints" / f"epoch-{stopped['epoch']:06d}").is_dir()  # which was not due


def test_what_slurm_refuses_is_told_and_nothing_is_left_behind(
    cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", "prdp", "--suite", "optimum-gaussian", "--seeds", "0", "--out", "out", "--on", "slurm"]
    assert exit_code([*command, "--gpus", "0", "--slurm", "partition=nowhere"]) == 2
    said = capfd.readouterr().err
    assert "invalid partition specified: nowhere" in said
    assert "nothing was submitted" in said
    assert [path.name for path in (cluster / "out" / ".sweeps").iterdir()] == [".lock"]


def test_other_code_is_refused_and_a_task_that_does_not_find_its_folder_says_so_with_its_host(
    cluster: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SBATCH_JOB_NAME", "mine"), ("SBATCH_PARTITION", "nowhere")):  # of the user's own jobs
        monkeypatch.setenv(name, value)
    command = ["sweep", "prdp", "--suite", "optimum-gaussian", "--seeds", "0", "--out", "out", "--on", "slurm"]
    command += ["--gpus", "0", "--slurm", "partition=main", "--slurm", "comment=my own"]
    assert exit_code([*command, "--slurm", "hold=true"]) == 0
    (name,) = (path.name for path in (cluster / "out" / ".sweeps").iterdir() if path.is_dir())
    (job,) = tasks()
    assert [state.reason for state in task_states([cluster / "out"])] == ["JobHeldUser"]
    file = cluster / "out" / ".sweeps" / name / "tasks.json"
    content = file.read_text()
    file.write_text(json.dumps(json.loads(content) | {"code": "rfbench 9.9, commit abc"}))
    assert exit_code(command) == 2  # what is compared must be of one code
    said = capfd.readouterr().err
    assert "queued or running with other code: rfbench 9.9, commit abc; this is rfbench" in said
    file.write_text(content)
    assert exit_code(command) == 0
    assert "1 queued already" in capfd.readouterr().out
    (cluster / "out").rename(cluster / "a disk of the login node")
    subprocess.run(["scontrol", "release", job.partition("_")[0]], check=True)
    wait_until(lambda: not tasks(), "a task that ends")
    host = subprocess.run(["hostname"], capture_output=True, text=True).stdout.strip()
    said = f"{host} does not see {cluster}/out/.sweeps/{name}/tasks.json"
    assert said in (cluster / f"{name}.err").read_text()
    assert said in subprocess.run(["squeue", "-ht", "all", "-o", "%k"], capture_output=True, text=True).stdout


def place(index: int) -> tuple[str, int]:
    """Algorithm and seed of a task: seed by seed, first PRDP."""
    return ("prdp", "ddpo")[index % 2], index // 2


def run(out: Path, index: int) -> Path:
    """The folder of a task."""
    algorithm, seed = place(index)
    return out / "optimum-gaussian" / algorithm / f"seed-{seed}"


def tasks() -> dict[str, str]:
    """The sweep's tasks that are queued or running, and how they are."""
    lines = subprocess.run(["squeue", "-hr", "-o", "%i %T %j"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in lines.splitlines()]
    return {job: state for job, state, name in rows if name.startswith("rfbench-")}


def running() -> int:
    return list(tasks().values()).count("RUNNING")


def minutes(job: str) -> int:
    """A time limit that is 30 to 90 s away: Slurm looks every 30 s, and one look then falls into the warning's time."""
    shown = subprocess.run(["squeue", "-hj", job, "-o", "%M"], capture_output=True, text=True, check=True).stdout
    used = sum(int(part) * 60**power for power, part in enumerate(reversed(shown.split(":"))))
    return (used + 30) // 60 + 1


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
