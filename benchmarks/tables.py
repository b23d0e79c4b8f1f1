"""Writes the tables of README.md and docs/results.md from the reference results, as `rfbench compare` makes them.

    python -m rfbench_benchmarks.tables

A table stands between ``<!-- headline SUITE MEASURE -->`` and ``<!-- end -->``; a test keeps them equal to the records.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rfbench.report import compare
from rfbench.report.headline import tables

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/results.md")
BLOCK = re.compile(r"(<!-- headline (\S+) (\S+) -->\n).*?(\n<!-- end -->)", re.DOTALL)


def reference_runs() -> list[Path]:
    """The run folders that are part of the repository; those that a user has added to results/ are not."""
    command = ["git", "-C", str(ROOT), "ls-files", "results/*/run.json"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [(ROOT / line).parent for line in listed.splitlines()]


def headlines(runs: Sequence[Path]) -> dict[tuple[str, str], str]:
    """The headline table of each (suite, measure) of some run folders."""
    with tempfile.TemporaryDirectory() as out:
        estimates = compare(runs, out).estimates
    return {
        (suite, heading.partition(" ")[0]): table
        for (suite,), rows in estimates.group_by("suite")
        for heading, table in tables(rows)
    }


def filled(page: str, found: dict[tuple[str, str], str]) -> str:
    """``page`` with every marked table written anew."""
    return BLOCK.sub(lambda block: block[1] + found[block[2], block[3]] + block[4], page)


def main() -> None:
    found = headlines(reference_runs())
    for name in PAGES:
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
