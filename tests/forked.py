"""Processes that need not start Python anew: one for a test, or several of one run as torchrun launches them."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

from accelerate.state import AcceleratorState

FROM_ANEW = multiprocessing.get_context(
    "forkserver"
)  # no backward pass ran there: after one on fake tensors none can be forked
FROM_ANEW.set_forkserver_preload(["tests.tiny", "rfbench.running.trainer"])

Result = tuple[str, Any]  # "returned" and a value, or an error's class and its message


def exit_code_of(function: Callable[..., None], *arguments: Any) -> int | None:
    """How ``function``, one of a module, ended in a process of its own; of a signal its number, negative."""
    process = FROM_ANEW.Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def on_processes(count: int, function: Callable[[int], Any], seconds: float = 120) -> list[Result | None]:
    """What ``function(rank)`` gave on each of ``count`` processes; None of one that had to be ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=_process, args=(rank, count, port, function, pipes[rank][1])) for rank in range(count)
    ]
    for process in processes:
        process.start()
    results = [receiver.recv() if receiver.poll(seconds) else None for receiver, _ in pipes]
    for process in processes:
        process.kill()
        process.join()
    return results


def _process(rank: int, count: int, port: int, function: Callable[[int], Any], sender: Any) -> None:
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in launched.items()}, MASTER_ADDR="127.0.0.1")
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        sender.send(("returned", function(rank)))
    except BaseException as error:
        sender.send((type(error).__name__, str(error)))
    os._exit(0)  # whatever the others do
