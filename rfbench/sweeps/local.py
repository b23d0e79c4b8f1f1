"""A sweep on this machine: lanes of one run at a time, each with cores and GPUs of its own."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import torch

from rfbench.errors import InputError
from rfbench.sweeps.engine import Attempt, Outcome
from rfbench.sweeps.jobs import Job


@dataclass(frozen=True)
class Lane:
    """One run at a time, on ``threads`` cores and on the GPUs of these names, if any."""

    threads: int
    gpus: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        """The environment of a run in this lane."""
        lane = {"OMP_NUM_THREADS": str(self.threads)}
        if self.gpus:
            lane["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        return {**os.environ, **lane}


def make_lanes(count: int | None, gpus_per_run: int = 1) -> list[Lane]:
    """``count`` lanes over this machine: by default as many as its GPUs serve, or one a core where there is no GPU."""
    cores, gpus = num_cores(), visible_gpus()
    if gpus_per_run == 0:
        gpus = []
    if gpus_per_run > 1 and len(gpus) < gpus_per_run:
        raise InputError(f"--gpus {gpus_per_run} asks for more GPUs than the {len(gpus)} that can be seen here")
    slots = [tuple(gpus[i : i + gpus_per_run]) for i in range(0, len(gpus) - gpus_per_run + 1, gpus_per_run or 1)]
    lanes = count or len(slots) or cores
    return [Lane(max(1, cores // lanes), slots[lane % len(slots)] if slots else ()) for lane in range(lanes)]


def num_cores() -> int:
    """Cores that this process may use; macOS does not limit them, and cannot say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """What the GPUs that this process may use are called in ``CUDA_VISIBLE_DEVICES``: numbers, or GPU- or MIG- names.

    As in CUDA, the list ends where a name is no device's. torch sees one part of a divided GPU (MIG) at a time, so
    those are counted by their names.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = torch.cuda.device_count()
    if given is None or not seen:
        return [str(index) for index in range(seen)]
    names = [name.strip() for name in given.split(",")]
    if names[0].startswith("MIG-"):
        return list(dict.fromkeys(name for name in names if name.startswith("MIG-")))
    return names[:seen]


class Local:
    """Runs every job on this machine, a free lane taking the next."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes

    def run(self, jobs: Sequence[Job], look: Callable[[list[Outcome]], None]) -> list[Outcome]:
        """Returns when all have ended; ``look`` sees the outcomes so far about once a second.

        However this process ends, its runs end too, and keep their checkpoints.
        """
        free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for lane in self._lanes:
            free.put(lane)
        children = _Children()
        with _terminable(), ThreadPoolExecutor(len(self._lanes)) as pool:
            futures = [pool.submit(_run, job, free, children) for job in jobs]
            try:
                while wait(futures, timeout=1).not_done:
                    look(_outcomes(futures))
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                children.interrupt()
                raise
        outcomes = _outcomes(futures)
        look(outcomes)
        return outcomes


def _outcomes(futures: list[Future[Outcome]]) -> list[Outcome]:
    return [future.result() for future in futures if future.done() and not future.cancelled()]


def _run(job: Job, free: queue.SimpleQueue[Lane], children: _Children) -> Outcome:
    if job.finished:
        return Outcome(job, None, skipped=True)
    lane = free.get()
    try:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        attempt = Attempt(job)
        with open(job.log, "ab") as log:
            code = children.run(job.command(), lane.environment(), log)
        return attempt.outcome(explain_exit(code))
    except OSError as error:
        return Outcome(job, str(error))
    finally:
        free.put(lane)


def explain_exit(code: int) -> str:
    """What an exit code says, in words."""
    if code == 0:
        return "its process ended with code 0 before the run was finished, by sys.exit or the like"
    number = -code if code < 0 else code - 128
    if code == 128 + signal.SIGINT or not 0 < number < signal.NSIG:
        return f"it ended with code {code}"
    hint = "; the system does so where memory runs out" if number == signal.SIGKILL else ""
    return f"it was killed by signal {number} ({signal.Signals(number).name}){hint}"


class _Children:
    """The processes that are running; a set of them, so that an interruption reaches all."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, command: list[str], environment: dict[str, str], output: IO[bytes]) -> int:
        """The exit code of a command, in a session of its own: Ctrl-C reaches it through the lifeline alone."""
        with self._lock:
            if self._stopped:
                return 130
            child = subprocess.Popen(
                [sys.executable, "-m", "rfbench.sweeps.lifeline", *command],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(child)
        try:
            return child.wait()
        finally:
            with self._lock:
                self._running.discard(child)

    def interrupt(self) -> None:
        """Ends every child as Ctrl-C would, and lets no other begin."""
        with self._lock:
            self._stopped = True
            for child in self._running:
                assert child.stdin is not None
                child.stdin.close()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM counts as Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
