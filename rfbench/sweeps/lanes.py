"""Where a sweep's runs compute: lanes of one run at a time, each a core's or a GPU's."""

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

from rfbench.sweeps.jobs import Job


@dataclass(frozen=True)
class Lane:
    """One run at a time, on ``threads`` cores and on a GPU where there is one."""

    threads: int
    gpu: int | None

    def environment(self) -> dict[str, str]:
        lane = {"OMP_NUM_THREADS": str(self.threads)}
        if self.gpu is not None:
            lane["CUDA_VISIBLE_DEVICES"] = str(self.gpu)
        return {**os.environ, **lane}


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ``error`` is None where its run is finished."""

    job: Job
    error: str | None
    skipped: bool = False  # it was finished before


def make_lanes(count: int | None) -> list[Lane]:
    """``count`` lanes over this machine: by default one a GPU, or one a core where there is no GPU."""
    cores, gpus = len(os.sched_getaffinity(0)), torch.cuda.device_count()
    lanes = count or gpus or cores
    return [Lane(max(1, cores // lanes), lane % gpus if gpus else None) for lane in range(lanes)]


def run_jobs(jobs: Sequence[Job], lanes: Sequence[Lane], look: Callable[[list[Outcome]], None]) -> list[Outcome]:
    """Runs every job, a free lane taking the next; ``look`` sees the outcomes so far about once a second.

    An interruption of this process interrupts the runs, which keep their checkpoints.
    """
    free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
    for lane in lanes:
        free.put(lane)
    children = _Children()
    with _terminable(), ThreadPoolExecutor(len(lanes)) as pool:
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
        with open(job.log, "wb") as log:
            code = children.run([sys.executable, "-m", "rfbench", *job.arguments], lane.environment(), log)
        return Outcome(job, None if job.finished else _reason(job, code))
    except OSError as error:
        return Outcome(job, str(error))
    finally:
        free.put(lane)


def _reason(job: Job, code: int) -> str:
    """Why a run ended with ``code``: its own words, or the last that it printed."""
    if code == 0:
        return f"its process ended with code 0 before the run was finished, by sys.exit or the like; see {job.log}"
    record = job.record()
    if record is not None and record.status == "failed":
        return str(record.error)
    printed = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return printed[-1] if printed else f"it ended with code {code} and printed nothing"


class _Children:
    """The processes that are running; a set of them, so that an interruption reaches all."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, command: list[str], environment: dict[str, str], output: IO[bytes]) -> int:
        """The exit code of a command, in a session of its own: Ctrl-C reaches it through ``interrupt`` alone."""
        with self._lock:
            if self._stopped:
                return 130
            child = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
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
                child.send_signal(signal.SIGTERM)


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
