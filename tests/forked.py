"""Processes that need not start Python anew: one for a test, or several of one run as torchrun launches them.

They are forked from a server that only imports. This process may have run a backward pass on tensors of another device
(the memory account does, on fake ones); its children could run none: autograd's threads do not survive a fork. So what
they are given is pickled: a function of a module, and plain arguments.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from accelerate.state import AcceleratorState

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.tiny", "rfbench.cli", "rfbench.running.trainer"])

Result = tuple[str, Any]  # "returned" and a value, or an error's class and its message


def exit_code_of(function: Callable[..., None], *arguments: Any) -> int | None:
    """How ``function`` ended in a process of its own; of a signal its number, negative."""
    process = SERVER.Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def on_processes(
    count: int, function: Callable[..., Any], *arguments: Any, seconds: float = 600
) -> list[Result | None]:
    """What ``function(rank, *arguments)`` gave on each of ``count`` processes; None of one that had to be ended."""
    port = free_port()
    pipes = [SERVER.Pipe(duplex=False) for _ in range(count)]
    processes = [
        SERVER.Process(target=_process, args=(rank, count, port, sender, function, arguments))
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process, (_, sender) in zip(processes, pipes, strict=True):
        process.start()
        sender.close()  # here: the end of a process then ends the wait for its result
    results = [_received(receiver, seconds) for receiver, _ in pipes]
    for process in processes:
        process.kill()
        process.join()
    return results


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def launched(rank: int, count: int, port: int) -> dict[str, str]:
    """The environment that torchrun gives to one of ``count`` processes on a node."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return {name: str(value) for name, value in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}


def _received(receiver: Any, seconds: float) -> Result | None:
    with suppress(EOFError):
        return receiver.recv() if receiver.poll(seconds) else None
    return None


def _process(
    rank: int, count: int, port: int, sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(launched(rank, count, port))
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        sender.send(("returned", function(rank, *arguments)))
    except BaseException as error:
        sender.send((type(error).__name__, str(error)))
    os._exit(0)  # whatever the others do
