"""Commands as a user types them, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfbench.cli import exit_code

SHORT = ["epochs=1", "evaluation.every=1", "budget.reward_queries_per_epoch=8", "algorithms.prdp.images_per_prompt=4"]
SETS = [part for text in SHORT for part in ("--set", text)]  # a run of prdp on optimum-gaussian in a second


def rfbench(*arguments: str | Path) -> int:
    """The exit code of a command."""
    return exit_code([str(argument) for argument in arguments])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, as one line."""
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())
