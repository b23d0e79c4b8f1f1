"""How a run is asked to stop, and when it does."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

GRACE_SECONDS = 20  # that an epoch may go on for after SIGTERM


class StopRequest:
    """How a run is asked to stop: a context in which signals are noted.

    - SIGTERM, as from ``kill``, a cluster or torchrun, and SIGHUP, where the terminal is lost: at the end of the epoch,
      if that comes within ``GRACE_SECONDS``, else at once. Whoever sends SIGTERM kills the run some 30 seconds later.
      Under ``nohup`` a lost terminal is no reason to stop.
    - SIGUSR2, as from a cluster whose time limit is near: at the end of the epoch.
    - Ctrl-C: at once; at the end of the epoch where code that is called, a plugin's or a library's, swallows it.

    At the end of an epoch a checkpoint is written first. Processes of one run stop after the same epoch.
    """

    def __init__(self) -> None:
        self.made = False
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> StopRequest:
        handlers: dict[int, Any] = {
            signal.SIGTERM: self._soon,
            signal.SIGUSR2: self._after_epoch,
            signal.SIGALRM: self._now,
        }
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            handlers[signal.SIGINT] = self._at_once
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            handlers[signal.SIGHUP] = self._soon
        self._previous = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
        return self

    def settle(self) -> None:
        """The run has begun to stop: nothing more is raised."""
        signal.alarm(0)

    def __exit__(self, *_: object) -> None:
        self.settle()
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _after_epoch(self, signum: int, frame: FrameType | None) -> None:
        self.made = True

    def _soon(self, signum: int, frame: FrameType | None) -> None:
        self.made = True
        if not signal.getitimer(signal.ITIMER_REAL)[0]:  # a second SIGTERM does not put the end off
            signal.alarm(GRACE_SECONDS)

    def _at_once(self, signum: int, frame: FrameType | None) -> None:
        self.made = True
        raise KeyboardInterrupt

    def _now(self, signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt
