"""What Slurm says: of the tasks that a folder's sweeps handed to it, and of a job that runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rfbench.errors import RfbenchError
from rfbench.records.submission import PREFIX, TaskState, submissions

# any other state is a task that is queued, runs, or comes back
# fmt: off
ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
)
# fmt: on
SECONDS = 60  # that a command of Slurm's may take: a busy controller answers late


def installed() -> bool:
    """Whether this machine can submit to a cluster."""
    return shutil.which("sbatch") is not None


def call(*command: str) -> str:
    """What one of Slurm's commands printed; an ``RfbenchError`` with its words where it failed."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RfbenchError(f"Slurm's {command[0]} did not answer: {error}") from None
    if result.returncode:
        said = " ".join((result.stderr or result.stdout).split())
        raise RfbenchError(f"Slurm's {command[0]} failed: {said or f'code {result.returncode}'}")
    return result.stdout


def task_states(roots: Sequence[Path]) -> list[TaskState]:
    """The tasks of the sweeps with results in ``roots`` that Slurm knows of.

    It forgets those that ended after some minutes; where the cluster keeps accounts, they are looked up there.
    """
    known = {submission.name: submission for root in roots for submission in submissions(root)}
    if not known:
        return []
    rows = _queue() + _accounts(sorted(known))
    found: dict[tuple[str, str], TaskState] = {}
    for job, name, state, node, reason in rows:
        submission, (_, separator, index) = known.get(name), job.partition("_")
        if submission is None or not separator or not index.isdecimal() or int(index) >= len(submission.tasks):
            continue
        task = submission.tasks[int(index)]
        found.setdefault((name, index), TaskState(task, job, state, state not in ENDED, node, reason, submission.code))
    return list(found.values())


def job_state(job: str) -> tuple[str, str]:
    """A job's state, such as RUNNING or COMPLETING, and the reason for it, such as TimeLimit."""
    words = call("scontrol", "--oneliner", "show", "job", job).split()
    found = dict(word.split("=", 1) for word in words if word.startswith(("JobState=", "Reason=")))
    return found.get("JobState", ""), found.get("Reason", "")


def requeue(job: str) -> None:
    """Puts a job that runs, or has just ended, back into the queue."""
    call("scontrol", "requeue", job)


def _queue() -> list[list[str]]:
    columns = "%i|%j|%T|%N|%r|%k"  # the comment comes last: it may hold anything
    lines = call("squeue", "--me", "--noheader", "--array", "--states=all", f"--format={columns}").splitlines()
    rows = [line.split("|", 5) for line in lines if line.count("|") >= 5]
    return [
        [job, name, state, node, comment if state in ENDED and comment not in ("", "(null)") else reason]
        for job, name, state, node, reason, comment in rows
        if name.startswith(PREFIX)
    ]


def _accounts(names: Sequence[str]) -> list[list[str]]:
    """The same of jobs that have left the queue; none where the cluster keeps no accounts."""
    if shutil.which("sacct") is None:
        return []
    columns = "JobID%40,JobName%200,State%30,NodeList%100,ExitCode"
    options = ["--allocations", "--noheader", "--parsable2", "--starttime=now-30days", f"--name={','.join(names)}"]
    try:
        lines = call("sacct", *options, f"--format={columns}").splitlines()
    except RfbenchError:
        return []
    rows = [line.split("|") for line in lines if line.count("|") == 4]
    return [[job, name, state.split()[0], node, f"{state}, exit code {code}"] for job, name, state, node, code in rows]
