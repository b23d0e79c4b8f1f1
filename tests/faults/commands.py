"""rfbench's commands in processes of their own, which need not start Python anew.

Each is forked from a server that has imported rfbench and done nothing else. From then on it is the command line: its
own session, its own output, ended by whatever signal is sent to it. What a fork leaves out is the start of Python and
the imports, some seconds in which nothing is written.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forked import SERVER

SERVER.set_forkserver_preload(["tests.tiny", "tests.faults.server"])
PATIENCE = 300.0  # seconds after which a command counts as one that hangs
Before = tuple[Callable[..., None], tuple[Any, ...]]  # what a process does before its command, and its arguments


@dataclass(frozen=True)
class Result:
    """How a command ended.

    Attributes:
        code: its exit code; of a signal its number, negative; None where it had to be ended.
        said: what it printed, to either stream.
    """

    code: int | None
    said: str

    @property
    def words(self) -> str:
        """What it printed, in one line."""
        return " ".join(self.said.split())


class Running:
    """A command that has begun."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        folder: Path,
        before: Sequence[Before] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        """``folder``: where the command is given, and where its output goes."""
        self._output = folder / f".output-{time.monotonic_ns()}"
        ready, begun = SERVER.Pipe(duplex=False)
        words = [str(argument) for argument in arguments]
        self._process = SERVER.Process(
            target=_command, args=(words, folder, self._output, tuple(before), environment or {}, begun)
        )
        self._process.start()
        begun.close()
        with suppress(EOFError):
            ready.recv()
        self.began = time.monotonic()

    def send(self, number: signal.Signals) -> None:
        """A signal to the process alone, as from ``kill``; nothing where it has ended."""
        if self._process.is_alive() and self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def ended(self, within: float) -> bool:
        """Whether the command ends by itself within so many seconds."""
        self._process.join(within)
        return not self._process.is_alive()

    def end(self, patience: float = PATIENCE) -> Result:
        """Waits for the command to end, and ends it and its children after ``patience`` seconds."""
        self._process.join(patience)
        hangs = self._process.is_alive()
        if hangs and self._process.pid is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.join()
        said = self._output.read_text(errors="replace") if self._output.exists() else ""
        self._output.unlink(missing_ok=True)
        return Result(None if hangs else self._process.exitcode, said)


def run(
    arguments: Sequence[str | Path], folder: Path, *before: Before, environment: dict[str, str] | None = None
) -> Result:
    """A command from its beginning to its end."""
    return Running(arguments, folder, before, environment).end()


def _command(
    arguments: list[str],
    folder: Path,
    output: Path,
    before: tuple[Before, ...],
    environment: dict[str, str],
    begun: Any,
) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores both
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdin = open(os.devnull)  # noqa: SIM115  # for as long as the process lives
    sys.stdout, sys.stderr = (open(stream, "w", closefd=False, errors="replace") for stream in (1, 2))  # noqa: SIM115
    from rfbench.cli import main

    begun.send("begun")
    for function, its_arguments in before:
        function(*its_arguments)
    code: Any = 1
    try:
        main(arguments)
    except SystemExit as error:
        code = error.code
    except BaseException:
        import traceback

        traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
