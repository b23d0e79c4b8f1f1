"""A disk that takes no more: the run fails in words, and a resume, once there is room, is exact."""

from __future__ import annotations

import os
import resource
import subprocess

from tests.faults import runs
from tests.faults.commands import Before
from tests.faults.contents import require_same
from tests.faults.trial import Broken, Trial, Void

RESERVE = 1 << 24  # bytes of a disk that is no longer full
OUTPUT = 2048  # bytes of what a command says, which goes to a file too


def files_up_to(size: int) -> Before:
    """As ``ulimit -f``: no file may be larger than ``size`` bytes; to a program it is as a share that is used up."""
    return _limit_files, (size,)


def _limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def limited_files(trial: Trial) -> None:
    """Some file of the run does not fit: a record, a checkpoint, a picture, the weights."""
    training = runs.any_training(trial, trial.random)
    expected = runs.whole(trial, training)
    sizes = [path.stat().st_size for path in expected.rglob("*") if path.is_file() and path.stat().st_size]
    limit = max(OUTPUT, int(trial.random.choice(sizes) * trial.random.uniform(0, 1)))
    trial.steps.append(f"files of {limit} bytes at most")
    failed = trial.rfbench(training.command("out"), files_up_to(limit))
    _require_said(failed.code, failed.words)
    trial.done(runs.go_on(trial, training))
    require_same(training.folder(trial.folder / "out"), expected)


def full_disk(trial: Trial) -> None:
    """The disk is full at some moment, and then there is room again."""
    training = runs.gaussian(trial.random.choice(runs.ALGORITHMS))
    expected = runs.whole(trial, training)
    out = trial.folder / "out"
    out.mkdir()
    kib = trial.random.randint(4, 120)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(out)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        raise Void("only root can mount a small disk")
    try:
        trial.steps.append(f"a disk of {kib} KiB")
        first = trial.rfbench(training.command("out"))
        if first.code != 0:
            _require_said(first.code, first.words)
            subprocess.run(["mount", "-o", f"remount,size={RESERVE}", str(out)], check=True)
            trial.done(runs.go_on(trial, training))
        require_same(training.folder(out), expected)
    finally:
        subprocess.run(["umount", str(out)], check=False)


def _require_said(code: int | None, said: str) -> None:
    if code == 0:
        raise Broken(f"the disk took no more, and the run says that it is finished: {said[-300:]}")
    if not any(words in said for words in ("could not be written", "disk is full", "larger than is allowed")):
        raise Broken(f"that the disk is full is not said: {said[-300:]}")
