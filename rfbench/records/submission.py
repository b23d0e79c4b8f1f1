"""What a sweep handed to a cluster: ``OUT/.sweeps/NAME/tasks.json``, and what the cluster says of each task.

The name is the Slurm job's too. So the tasks that are queued are found by asking Slurm for its jobs and looking their
names up here; nothing else is remembered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = ".sweeps"
PREFIX = "rfbench-"  # of every job's name


@dataclass(frozen=True)
class Task:
    """One run of a submitted sweep.

    Attributes:
        command: what makes the run.
        folder, log: of the run, absolute.
    """

    suite: str
    variant: str
    seed: int
    command: tuple[str, ...]
    folder: str
    log: str


@dataclass(frozen=True)
class Submission:
    """A job array: task ``i`` of it is ``tasks[i]``.

    Attributes:
        name: of the job, and of the folder.
        code: version and commit that it was submitted with.
        restarts: how often a task may queue itself again.
        warning: seconds before the time limit at which Slurm warns a task.
    """

    name: str
    code: str
    restarts: int
    warning: int
    tasks: tuple[Task, ...]

    def write(self, folder: Path) -> None:
        """Writes ``folder/tasks.json``."""
        (folder / "tasks.json").write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Submission:
        """A ``ValueError`` where the file is not whole."""
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            tasks = tuple(Task(**{**task, "command": tuple(task["command"])}) for task in data.pop("tasks"))
            return cls(tasks=tasks, **data)
        except (OSError, TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{file} cannot be read: {error}") from error


@dataclass(frozen=True)
class TaskState:
    """What Slurm says of a task.

    Attributes:
        job: its number, such as ``12_3``.
        state: Slurm's word: PENDING, RUNNING, FAILED, ...
        active: whether it is queued or running.
        node: where it runs or ran, if anywhere.
        reason: why it waits, or how it ended.
        code: version and commit that it was submitted with.
    """

    task: Task
    job: str
    state: str
    active: bool
    node: str
    reason: str
    code: str


def submissions(root: Path) -> Iterator[Submission]:
    """Every readable submission of the sweeps with results in ``root``."""
    for file in sorted(root.glob(f"{FOLDER}/*/tasks.json")):
        try:
            yield Submission.read(file)
        except ValueError:
            continue  # a submission that was cut off: it never reached the queue
