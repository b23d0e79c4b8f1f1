"""Runs on the tiny pipeline: to make one, to kill one, to compare what two left."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rfbench import files
from rfbench.core import rollout
from rfbench.core.learner import Learner
from rfbench.running import checkpoint
from rfbench.running.checkpoint import Owner
from rfbench.running.folder import RunFolder
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Suite
from tests import tiny
from tests.forked import exit_code_of


def run(suite: Suite, out: Path, label: str = "prdp", **options: Any) -> Path:
    """The folder of a quiet run."""
    return train(tiny.plan(suite, label), out, Quiet(), **options)


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    """The records without the durations."""
    records = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if not key.endswith("seconds")} for record in records]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (newest,) = (folder / "checkpoints").iterdir()
    return load_file(newest / "weights.safetensors")


def assert_same_run(first: Path, second: Path) -> None:
    assert lines(first, "metrics") == lines(second, "metrics")
    assert (first / "evals.jsonl").read_bytes() == (second / "evals.jsonl").read_bytes()
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    samples = sorted(path.name for path in (first / "samples").iterdir())
    assert samples == sorted(path.name for path in (second / "samples").iterdir())
    assert all((first / "samples" / n).read_bytes() == (second / "samples" / n).read_bytes() for n in samples)


def kill_at(target: Any, name: str, call: int, before: bool = True) -> None:
    """Replaces a function by one that kills this process, as `kill -9` does, at its n-th call."""
    original: Callable[..., Any] = getattr(target, name)
    calls = 0

    def deadly(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        result = None if before and calls == call else original(*arguments, **options)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(target, name, deadly)


def owner(folder: Path) -> Owner:
    """Whose the checkpoints of a run's folder are."""
    return Owner.recorded(RunFolder(folder, writer=False).require_run())


KILLS: dict[str, tuple[Any, str, int, bool]] = {
    "in the first sampling": (rollout, "log_density", 3, True),
    "in the second epoch's sampling": (rollout, "log_density", 7, True),
    "in an update": (Learner, "backward", 8, True),
    "between the updates of an epoch": (Learner, "step", 3, False),
    "after the records, before the checkpoint": (checkpoint, "save", 3, True),
    "while a checkpoint is written": (checkpoint, "save_file", 3, False),
    "before a checkpoint is complete": (files, "sync", 8, True),
    "between the rename and the clean-up": (checkpoint, "remove_checkpoints", 3, True),
    "between the last rename and its clean-up": (checkpoint, "remove_checkpoints", 4, True),
    "while records are written": (RunFolder, "append", 4, False),
}


def doomed(moment: str, suite: Suite, out: Path, label: str) -> None:
    kill_at(*KILLS[moment])
    run(suite, out, label)


def exit_code_of_killed(moment: str, suite: Suite, out: Path, label: str) -> int | None:
    """That of a run in a process of its own, killed at one of the moments of ``KILLS``."""
    return exit_code_of(doomed, moment, suite, out, label)
