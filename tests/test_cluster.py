"""A sweep for Slurm as far as it can be told without one: settings, the batch script, disks, a task's file."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from rfbench.cli import exit_code
from rfbench.cli.app import console
from rfbench.errors import InputError
from rfbench.records.submission import Submission, Task, submissions
from rfbench.sweeps.slurm.disks import local_disk
from rfbench.sweeps.slurm.script import batch_script, sbatch_options
from rfbench.sweeps.slurm.settings import Settings, load_settings, seconds

TASK = Task("tiny", "prdp", 0, ("true",), "/results/tiny/prdp/seed-0", "/results/tiny/prdp/seed-0.log")
THREE = Submission("rfbench-tiny-abc", "rfbench 1, commit abc", 20, 180, (TASK, TASK, TASK))


def test_the_command_line_is_laid_over_the_users_file(tmp_path: Path) -> None:
    file = tmp_path / "slurm.toml"
    file.write_text('partition = "gpu"\ntime = "04:00:00"\nexclusive = true\nmem_per_cpu = "4G"\nrestarts = 3\n')
    settings = load_settings(["time=1-00", "--qos=long"], file)
    assert settings.options == {
        "partition": "gpu",
        "time": "1-00",
        "exclusive": "",
        "mem-per-cpu": "4G",
        "qos": "long",
    }
    assert settings.restarts == 3
    assert load_settings([], tmp_path / "none.toml") == Settings()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("partition", "expected KEY=VALUE"),
        ("partitoin=gpu", "sbatch has no option 'partitoin' .did you mean 'partition'"),
        ("array=0-3", "array is set by rfbench: the tasks are the sweep's runs"),
        ("job_name=mine", "job-name is set by rfbench"),
        ("signal=USR1@60", "use warning=SECONDS"),
        ("nodes=2", "docs/cluster.md shows one run on several"),
        ("warning=5", "expected a whole number from 60"),
        ("restarts=-1", "expected a whole number from 0"),
        ("time=soon", "expected such as 04:00:00"),
        ("time=5", "told to stop in the first half of its time"),
        ("account=a\n#SBATCH --uid=0", "takes one value on one line"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_settings([given], tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("90", 5400),
        ("10:30", 630),
        ("04:00:00", 14400),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("2-00:00:10", 172810),
        ("UNLIMITED", None),
    ],
)
def test_time_limits_are_read_as_sbatch_reads_them(limit: str, expected: int | None) -> None:
    assert seconds(limit) == expected


def test_the_script_says_what_was_asked_for_and_is_sound_shell(tmp_path: Path) -> None:
    folder = tmp_path / "with 'quotes' and $(touch spaces)"
    settings = Settings({"partition": "gpu", "exclusive": ""}, setup="module load cuda")
    script = batch_script(THREE, settings, folder, sbatch_options(THREE, settings, gpus=2, at_once=2))
    directives = re.findall(r"^#SBATCH --(.*)$", script, re.M)
    assert directives == [
        "job-name=rfbench-tiny-abc",
        "array=0-2%2",
        "nodes=1",
        "ntasks=1",
        "gpus-per-node=2",
        "partition=gpu",
        "exclusive",
        "requeue",
        "signal=B:USR2@180",
        "output=/dev/null",
    ]
    assert script.index("module load cuda") < script.index("-m rfbench.sweeps.slurm.task")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_gpus_are_asked_for_once() -> None:
    typed = sbatch_options(THREE, Settings({"gres": "gpu:a100:1"}), gpus=1, at_once=None)
    none = sbatch_options(THREE, Settings(), gpus=0, at_once=None)
    assert not any("gpus-per-node" in option for option in [*typed, *none])


def test_a_task_that_does_not_find_its_folder_says_so_in_its_first_second(tmp_path: Path) -> None:
    script = batch_script(THREE, Settings(), tmp_path / "of the login node", options=[])
    told = tmp_path / "scontrol"
    told.write_text('#!/bin/sh\necho "$@"\n')
    told.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    result = subprocess.run(["bash"], input=script, capture_output=True, text=True, env=environment)
    assert result.returncode == 1
    host = subprocess.run(["hostname"], capture_output=True, text=True).stdout.strip()
    said = f"{host} does not see {tmp_path}/of the login node/tasks.json"
    assert said in (tmp_path / "rfbench-tiny-abc.err").read_text()
    assert f"update JobId=7_2 Comment={said}" in result.stdout


def test_local_disks_are_told_from_shared_ones(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\n10.0.0.1@tcp:/w /lustre lustre rw,flock 0 0\n"
        "/dev/nvme0 /lustre/local\\040disk xfs rw 0 0\n"
    )
    assert local_disk(Path("/home/me/results"), mounts) is None
    assert local_disk(Path("/lustre/results"), mounts) is None
    assert "ext4" in (local_disk(Path("/opt/results"), mounts) or "")
    assert "xfs" in (local_disk(Path("/lustre/local disk/results"), mounts) or "")
    assert "each machine's own" in (local_disk(Path("/tmp/results"), mounts) or "")
    assert local_disk(Path("/home/me"), tmp_path / "no such file") is None  # macOS


def test_a_submission_is_read_as_it_was_written_and_a_cut_off_one_is_passed_by(tmp_path: Path) -> None:
    for name in ("rfbench-a", "rfbench-b"):
        (tmp_path / ".sweeps" / name).mkdir(parents=True)
    THREE.write(tmp_path / ".sweeps" / "rfbench-a")
    (tmp_path / ".sweeps" / "rfbench-b" / "tasks.json").write_text('{"name": "rfb')
    assert list(submissions(tmp_path)) == [THREE]


def test_without_slurm_the_dry_run_shows_everything_and_the_sweep_is_refused(
    suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(console, "width", 60)  # of a narrow terminal, which loses no number
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    out = tmp_path / "out"
    command = ["sweep", "prdp", "rwr", "--suite", str(suite_file), "--seeds", "0-1", "--out", str(out), "--on", "slurm"]
    command += ["--slurm", "partition=gpu", "--jobs", "2", "--set", "algorithms.prdp.images_per_prompt=4"]
    assert exit_code([*command, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "#SBATCH --array=0-3%2" in printed
    assert "#SBATCH --partition=gpu" in printed
    assert "other machines will not find" in printed  # it lies in /tmp
    rows = re.findall(r"^ +(\d) +(\d) +mine +(\w+)", printed, re.M)
    assert rows == [("0", "0", "prdp"), ("1", "0", "rwr"), ("2", "1", "prdp"), ("3", "1", "rwr")]
    assert not out.exists()
    assert exit_code(command) == 2
    assert "there is no sbatch on" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("option", [["--slurm", "partition=gpu"], ["--wait"]])
def test_what_is_for_a_cluster_is_refused_without_one(
    option: list[str], suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(["sweep", "rwr", "--suite", str(suite_file), "--out", str(tmp_path), *option]) == 2
    assert "it goes with --on slurm" in capsys.readouterr().err
