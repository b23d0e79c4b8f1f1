"""Runs a command for as long as the process that started it lives: ``python -m rfbench.sweeps.lifeline COMMAND ...``.

A sweep holds the other end of this process's standard input. However the sweep ends, by Ctrl-C or by ``kill -9``, that
pipe closes; the command then gets SIGTERM, which leaves a run with its checkpoint, and no run goes on unattended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading


def main(command: list[str]) -> int:
    """The command's exit code; 128 and its number where a signal ended it, as a shell has it."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_the_pipe, args=(child,), daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


def _end_with_the_pipe(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock a waiting thread would hold when the interpreter ends
        pass
    child.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
