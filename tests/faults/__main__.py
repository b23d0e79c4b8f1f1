"""``python -m tests.faults``: the campaign."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # of torch, in every process that is started from here


def main() -> int:
    from tests.faults.campaign import KINDS, campaign, table

    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Faults on purpose.")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only this kind; may be repeated")
    parser.add_argument("--seed", type=int, help="only the trial with this seed, of one --kind; its folder is kept")
    parser.add_argument("--seeds", help="these seeds, such as 20-39, of each kind instead of all")
    parser.add_argument("--trials", type=int, help="trials of each kind, instead of its own number")
    parser.add_argument("--folder", type=Path, help="where trials are made, also by several campaigns at once")
    arguments = parser.parse_args()
    kinds = arguments.kind or list(KINDS)
    if arguments.seed is not None and len(kinds) != 1:
        parser.error("--seed needs one --kind")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    seeds: Sequence[int] | None = None if arguments.seed is None else [arguments.seed]
    if arguments.seeds:
        first, last = map(int, arguments.seeds.split("-"))
        seeds = range(first, last + 1)
    started = time.monotonic()
    outcomes = campaign(kinds, folder, seeds=seeds, trials=arguments.trials, keep=arguments.seed is not None)
    print(table(outcomes))
    print(f"{time.monotonic() - started:.0f} s")
    broke = [outcome for outcome in outcomes if outcome.broke]
    if not broke and arguments.seed is None and arguments.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"folders of the trials: {folder}")
    return 1 if broke else 0


if __name__ == "__main__":
    sys.exit(main())
