"""A sweep on a Slurm cluster: submit what is neither finished nor queued, once, and follow it if asked."""

from __future__ import annotations

import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rfbench.errors import InputError, RfbenchError
from rfbench.records.submission import FOLDER, PREFIX, Submission, Task, TaskState
from rfbench.running.provenance import code_version
from rfbench.sweeps.engine import Outcome, last_line
from rfbench.sweeps.jobs import Job
from rfbench.sweeps.slurm import queue
from rfbench.sweeps.slurm.disks import local_disk
from rfbench.sweeps.slurm.script import batch_script, sbatch_options
from rfbench.sweeps.slurm.settings import Settings

POLL_SECONDS = 5.0


class Slurm:
    """Hands the runs that are left to Slurm as one job array.

    Args:
        out: root of the results.
        gpus: of each run.
        at_once: how many runs may be made at a time; None leaves that to Slurm.
        wait: whether ``run`` returns only when no run is queued any more.
        note: is told what a person should know.
    """

    def __init__(
        self,
        settings: Settings,
        out: Path,
        *,
        gpus: int,
        at_once: int | None,
        wait: bool,
        note: Callable[[str], None],
    ) -> None:
        self._settings, self._out, self._gpus, self._at_once = settings, out, gpus, at_once
        self._wait, self._note = wait, note

    def run(self, jobs: Sequence[Job], look: Callable[[list[Outcome]], None]) -> list[Outcome]:
        """Submits; then returns what was finished before, or waits until every run has ended."""
        if not queue.installed():
            raise InputError(
                f"there is no sbatch on {socket.gethostname()}: --on slurm submits from a machine of the cluster, such "
                "as its login node; --dry-run shows here what it would submit, and --on local runs it here"
            )
        done = {job: Outcome(job, None, skipped=True) for job in jobs if job.finished}
        with self._alone():
            states = self._states()
            left = [job for job in jobs if job not in done and not _active(job, states)]
            self._check_code(states)
            if left:
                self._submit(left)
        waiting = len(jobs) - len(done) - len(left)
        self._note(f"{len(done)} of {len(jobs)} runs were finished already, {waiting} queued already")
        if not self._wait:
            look(list(done.values()))
            return list(done.values())
        while len(done) < len(jobs):
            time.sleep(POLL_SECONDS)
            states = self._states()
            for job in jobs:
                if job not in done and not _active(job, states):
                    done[job] = _outcome(job, states)
            look(list(done.values()))
        return list(done.values())

    def preview(self, jobs: Sequence[Job]) -> tuple[str, Submission]:
        """The batch script for the runs that are not finished, and their table; nothing is written."""
        submission = self._describe([job for job in jobs if not job.finished])
        return batch_script(submission, self._settings, self._folder(submission), self._options(submission)), submission

    def warnings(self) -> list[str]:
        """What may go wrong on the cluster, as far as it can be told from here."""
        said = []
        local = local_disk(self._out)
        if local:
            said.append(f"other machines will not find {self._out.resolve()}: {local}; use an --out that all nodes see")
        if "dirty" in code_version():
            said.append("the code has changes that are not committed: a task runs what stands there when it starts")
        return said

    def _states(self) -> Mapping[str, TaskState]:
        """The latest state of each run's folder: of several tasks on one, one that is queued or running counts."""
        states: dict[str, TaskState] = {}
        for state in sorted(queue.task_states([self._out]), key=lambda state: state.active):
            states[state.task.folder] = state
        return states

    def _check_code(self, states: Mapping[str, TaskState]) -> None:
        """Refuses to mix code: runs of one sweep are compared with each other."""
        active = {state.code for state in states.values() if state.active}
        other = sorted(active - {code_version()})
        if other:
            raise InputError(
                f"tasks of this sweep are queued or running with other code: {', '.join(other)}; this is "
                f"{code_version()}. Wait for them, cancel them (scancel), go back to their code, or use another --out"
            )

    def _submit(self, left: Sequence[Job]) -> None:
        submission = self._describe(left)
        folder, options = self._folder(submission), self._options(submission)
        folder.mkdir(parents=True)
        script = folder / "batch.sh"
        submission.write(folder)
        script.write_text(batch_script(submission, self._settings, folder, options), encoding="utf-8")
        try:  # the options also here: those of a script are outranked by the user's SBATCH_ variables
            number = queue.call("sbatch", "--parsable", *options, str(script)).strip().partition(";")[0]
        except RfbenchError as error:
            shutil.rmtree(folder)
            raise InputError(f"{error}; nothing was submitted") from None
        runs = "1 run" if len(left) == 1 else f"{len(left)} runs"
        self._note(f"submitted {runs} as Slurm job {number} ({submission.name}); the script is {script}")

    def _describe(self, jobs: Sequence[Job]) -> Submission:
        suites = sorted({job.suite for job in jobs})
        name = f"{PREFIX}{suites[0] if len(suites) == 1 else 'sweep'}-{secrets.token_hex(3)}"
        tasks = tuple(
            Task(
                suite=job.suite,
                variant=job.label,
                seed=job.seed,
                command=tuple(job.command()),
                folder=str(job.folder.resolve()),
                log=str(job.log.resolve()),
            )
            for job in jobs
        )
        return Submission(name, code_version(), self._settings.restarts, self._settings.warning, tasks)

    def _folder(self, submission: Submission) -> Path:
        return self._out.resolve() / FOLDER / submission.name

    def _options(self, submission: Submission) -> list[str]:
        return sbatch_options(submission, self._settings, self._gpus, self._at_once)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps a second sweep from submitting the same runs at the same moment."""
        place = self._out / FOLDER
        place.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(place / ".lock", timeout=60, fallback_to_soft=False):
                yield
        except Timeout:
            raise InputError(f"another sweep is submitting to {self._out} right now; try again") from None


def _active(job: Job, states: Mapping[str, TaskState]) -> bool:
    state = states.get(str(job.folder.resolve()))
    return state is not None and state.active


def _outcome(job: Job, states: Mapping[str, TaskState]) -> Outcome:
    """How a job stands that is not in the queue any more."""
    record = job.record()
    if record is not None and record.status == "finished":
        return Outcome(job, None)
    if record is not None and record.status == "failed":
        return Outcome(job, str(record.error))
    state = states.get(str(job.folder.resolve()))
    slurm = f"Slurm says {state.state}: {state.reason}" if state else "Slurm does not know it any more"
    printed = last_line(job.log)
    return Outcome(job, f"{printed} ({slurm})" if printed else slurm)
