"""A trial: one fault, drawn from a seed, and whether rfbench held."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.faults.commands import Before, Result, run

SHORT = ("epochs=3", "evaluation.every=2", "budget.reward_queries_per_epoch=16", "compute.checkpoint_every=1")
REWARDS: dict[bool, tuple[str, ...]] = {True: ("reward.name=odd",), False: ()}
PROPER_CODES = (0, 1, 2, 130)  # done, failed, bad input, interrupted


class Broken(Exception):  # noqa: N818  # of rfbench, not of the campaign
    """rfbench did not hold: what it did instead."""


class Void(Exception):  # noqa: N818
    """The trial cannot be made on this machine, such as a disk that only root can mount."""


@dataclass
class Trial:
    """What a kind's function gets.

    Attributes:
        seed: of its random numbers, which are its own.
        folder: an empty folder of its own.
        shared: a folder of all trials of a campaign, for what is made once.
        steps: what was done so far, for whoever repeats it.
        kills: how often a command was killed.
    """

    kind: str
    seed: int
    folder: Path
    shared: Path
    steps: list[str] = field(default_factory=list)
    kills: int = 0

    @cached_property
    def random(self) -> random.Random:
        return random.Random(f"{self.kind} {self.seed}")

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """A folder that ``make`` fills the first time that it is asked for, and that nobody changes."""
        folder = self.shared / name
        if not folder.exists():
            being_made = folder.with_name(f"{name}.{os.getpid()}")
            shutil.rmtree(being_made, ignore_errors=True)
            being_made.mkdir(parents=True)
            make(being_made)
            try:
                being_made.rename(folder)
            except OSError:  # another campaign in the same folder was faster
                shutil.rmtree(being_made)
        return folder

    def rfbench(self, arguments: Sequence[str | Path], *before: Before) -> Result:
        """A command in the trial's folder, which must end by itself and without a traceback."""
        self.steps.append(f"rfbench {' '.join(map(repr, map(str, arguments)))[:400]}")
        return require_proper(run(arguments, self.folder, *before))

    def rfbench_killed(self, arguments: Sequence[str | Path], *before: Before) -> Result:
        """A command that something in ``before`` may kill."""
        self.steps.append(f"rfbench {' '.join(map(str, arguments))[:400]}; {before}")
        result = require_proper(run(arguments, self.folder, *before), signal.SIGKILL)
        self.kills += result.code == -signal.SIGKILL
        return result

    def done(self, arguments: Sequence[str | Path], *before: Before) -> Result:
        """A command that must do what it was asked to."""
        result = self.rfbench(arguments, *before)
        if result.code != 0:
            raise Broken(f"exit code {result.code}: {result.words[-300:]}")
        return result

    def plugin_command(self, code: str | None, of_rewards: bool, *settings: str) -> list[str]:
        """A short run with the plugin ``odd``, a reward or an algorithm; ``code`` is written into its file."""
        if code is not None:
            (self.folder / "odd.py").write_text(code)
        algorithm = "ddpo" if of_rewards else "odd"
        sets = [*SHORT, f"algorithms.{algorithm}.images_per_prompt=4", *(settings or REWARDS[of_rewards])]
        command = ["run", algorithm, "--suite", "optimum-gaussian", "--out", "out", "--plugin", "odd.py"]
        return [*command, *(part for setting in sets for part in ("--set", setting))]

    def rfbench_with_plugin(self, code: str, of_rewards: bool, *settings: str, traceback: bool = False) -> Result:
        command = self.plugin_command(code, of_rewards, *settings)
        self.steps.append(f"rfbench {' '.join(command)}")
        return require_proper(run(command, self.folder), traceback=traceback)


def require_proper(result: Result, *signals: int, traceback: bool = False) -> Result:
    """``Broken`` unless a command ended as commands do, or by one of ``signals``; errors are told in words.

    ``traceback``: where a plugin's own code raised, its author needs to see where.
    """
    if result.code is None:
        raise Broken(f"it hangs; so far: {result.words[-300:]}")
    if "Traceback (most recent call last)" in result.said and not traceback:
        raise Broken(f"a traceback: {result.words[-400:]}")
    if result.code not in (*PROPER_CODES, *(-number for number in signals)):
        raise Broken(f"exit code {result.code}: {result.words[-300:]}")
    if (
        result.code in (1, 2)
        and not traceback
        and not any(word in result.said for word in ("error: ", "failed: ", "Error"))
    ):
        raise Broken(f"exit code {result.code} without a reason: {result.words[-300:]}")
    return result
