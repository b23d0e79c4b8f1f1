"""What each task of a job array does: ``python -m rfbench.sweeps.slurm.task TASKS_FILE INDEX``, as the batch process.

It makes the run in a child process and sees to it that a run which is cut off comes back. Slurm says so in two ways:

- SIGUSR2, to this process alone: the time limit is near. The child gets it too: it finishes its epoch, writes a
  checkpoint and ends. If it has not ended shortly before the limit, SIGTERM stops it within its epoch.
- SIGTERM, to every process of the job: it is cancelled, or preempted. The child stops by itself.

Then the task puts its job back into the queue, unless its user cancelled it, or Slurm does so already.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import IO

from rfbench.errors import RfbenchError
from rfbench.records.submission import Submission, Task
from rfbench.sweeps.slurm import queue

STOPPING = 45  # seconds before the time limit at which a run that was warned is stopped within its epoch
INTERRUPTED = 130


class Attempt:
    """One stay of a task on a node."""

    def __init__(self, submission: Submission, task: Task, log: IO[bytes]) -> None:
        self._submission, self._task, self._log = submission, task, log
        self._job = job_name()
        self._restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        self._child: subprocess.Popen[bytes] | None = None
        self._warned = self._terminated = False

    def run(self) -> int:
        """Makes the run as far as it gets; the exit code of the task."""
        signal.signal(signal.SIGUSR2, self._warn)
        signal.signal(signal.SIGALRM, self._stop)
        signal.signal(signal.SIGTERM, self._stop)
        again = f", restart {self._restarts}" if self._restarts else ""
        self._say(f"{self._submission.name} on {socket.gethostname()}, job {self._job}{again}")
        launcher = {  # --signals-to-handle and --shutdown-timeout of a torchrun that has them
            "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2",
            "PET_SHUTDOWN_TIMEOUT": str(max(30, self._submission.warning - STOPPING)),
        }
        self._child = subprocess.Popen(
            self._task.command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | launcher,
            preexec_fn=_survive_warnings,
        )
        if self._warned or self._terminated:  # told while the child was started
            self._child.terminate()
        code = self._child.wait()
        signal.alarm(0)
        if code and (self._warned or self._terminated):
            self._come_back()
            return INTERRUPTED
        if code:
            self._say(f"it ended with code {code}" if code > 0 else f"it was killed by signal {-code}")
        return code if code >= 0 else 128 - code

    def _come_back(self) -> None:
        """Puts the job back into the queue, if that is its user's wish and nobody else does."""
        why = "the time limit is near" if self._warned else "it was preempted"
        try:
            state, reason = queue.job_state(self._job)
            if reason == "TimeLimit":
                why = "the time limit was reached"
            if state != "RUNNING" and reason != "TimeLimit":  # cancelled, or Slurm has requeued it itself
                self._say(
                    f"it was stopped by Slurm ({state.lower() or 'gone'}): cancelled, or preempted and queued again"
                )
            elif self._restarts >= self._submission.restarts:
                self._say(f"{why}, but it has been restarted {self._restarts} times, which is its limit: it stays away")
            else:
                self._say(f"{why}: it goes back into the queue")
                queue.requeue(self._job)
        except RfbenchError as error:
            self._say(f"{why}, but it cannot go back into the queue: {error}")

    def _warn(self, signum: int, frame: FrameType | None) -> None:
        self._warned = True
        signal.alarm(max(1, self._submission.warning - STOPPING))
        self._pass_on(signal.SIGUSR2)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self._terminated = self._terminated or signum == signal.SIGTERM
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, signum: int) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signum)

    def _say(self, text: str) -> None:
        self._log.write(f"[{datetime.now():%Y-%m-%d %H:%M:%S}] {text}\n".encode())
        self._log.flush()


def main(file: str, index: str) -> int:
    """Runs task ``index`` of a submission."""
    submission = Submission.read(Path(file))
    task = submission.tasks[int(index)]
    log = Path(task.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        return Attempt(submission, task, output).run()


def _survive_warnings() -> None:
    """A run takes the warning once it can; a torchrun that does not pass it on would die of it, and leave the run."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def job_name() -> str:
    """This task's job as ``12_3``: the number of an array's last task alone would stand for the whole array."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array else os.environ.get("SLURM_JOB_ID", "?")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
