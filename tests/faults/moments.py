"""Random moments at which a process is killed: the same again for the same seed."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.faults.commands import Before


@dataclass(frozen=True)
class Length:
    """How long a command takes when nothing disturbs it: in seconds, and in calls and returns of functions."""

    seconds: float
    calls: int


def killed_after_calls(calls: int) -> Before:
    """``kill -9`` before the n-th call or return of a Python or C function: exactly the same moment each time."""
    return _kill_after_calls, (calls,)


def signalled_after(seconds: float, number: signal.Signals) -> Before:
    """A signal from outside, at any moment: also in the middle of a C function, such as one that writes a file."""
    return _signal_after, (seconds, int(number))


def counting_calls(file: Path) -> Before:
    """Writes the number of calls into ``file`` when the process ends."""
    return _count_calls, (file,)


def moment(random_numbers: random.Random, length: Length) -> Before:
    """A kill somewhere in a command of that length: half of them by the clock, half by the count of calls."""
    share = random_numbers.random()
    if random_numbers.random() < 0.5:
        return signalled_after(share * length.seconds, signal.SIGKILL)
    return killed_after_calls(1 + int(share * length.calls))


def _kill_after_calls(calls: int) -> None:
    seen = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == calls:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def _signal_after(seconds: float, number: int) -> None:
    pid = os.getpid()
    if os.fork() == 0:  # a process of its own: a thread would wait for the interpreter's lock
        time.sleep(seconds)
        if os.getppid() == pid:  # else it has ended, and its number may be another's
            os.kill(pid, number)
        os._exit(0)


def _count_calls(file: Path) -> None:
    seen = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal seen
        seen += 1

    def write() -> None:
        sys.setprofile(None)
        file.write_text(str(seen))

    exit_at_once = os._exit

    def leave(code: int) -> None:
        write()
        exit_at_once(code)

    os._exit = leave  # type: ignore[assignment]
    sys.setprofile(count)
