"""The batch script of a sweep, as text."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote

from rfbench.records.submission import Submission
from rfbench.sweeps.slurm.settings import GPUS, Settings

# a task that does not find its files cannot write beside them: it says so in the queue and where its user looks
SCRIPT = """\
#!/bin/bash
{directives}

tasks={tasks}
if ! cd {directory} || ! [ -r "$tasks" ]; then
    said="$(hostname) does not see $tasks: give the sweep an --out on a disk that all nodes share"
    scontrol update JobId="${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID" Comment="$said"
    cd "$SLURM_SUBMIT_DIR" || cd
    echo "$said" >>{name}.err
    exit 1
fi
exec >>"${{tasks%/*}}/$SLURM_ARRAY_TASK_ID.log" 2>&1
{setup}exec {python} -m rfbench.sweeps.slurm.task "$tasks" "$SLURM_ARRAY_TASK_ID"
"""


def sbatch_options(submission: Submission, settings: Settings, gpus: int, at_once: int | None) -> list[str]:
    """What Slurm is asked for, as options of ``sbatch``.

    Args:
        gpus: of each task.
        at_once: how many tasks may run at a time; None leaves that to Slurm.
    """
    throttle = f"%{at_once}" if at_once else ""
    options = {
        "job-name": submission.name,
        "array": f"0-{len(submission.tasks) - 1}{throttle}",
        "nodes": "1",
        "ntasks": "1",
    }
    if gpus and not any(option in settings.options for option in GPUS):
        options["gpus-per-node"] = str(gpus)
    options |= settings.options
    options |= {"requeue": "", "signal": f"B:USR2@{settings.warning}", "output": "/dev/null"}
    return [f"--{key}" + (f"={value}" if value else "") for key, value in options.items()]


def batch_script(submission: Submission, settings: Settings, folder: Path, options: list[str]) -> str:
    """What ``sbatch`` is given, with its options, for the tasks that ``folder/tasks.json`` lists."""
    return SCRIPT.format(
        directives="\n".join(f"#SBATCH {quote(option)}" for option in options),
        tasks=quote(str(folder / "tasks.json")),
        directory=quote(str(Path.cwd())),
        name=submission.name,
        setup=settings.setup.rstrip("\n") + "\n" if settings.setup else "",
        python=quote(sys.executable),
    )
