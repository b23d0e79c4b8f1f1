"""A guard for the science: a short fixed run of each algorithm must follow the curve that is stored beside this file.

    python -m tests.golden.curves             # compare (`make golden`); exit code 1 where a curve has moved
    python -m tests.golden.curves --write     # store the curves of this code

A refactoring changes nothing here. A change that is meant to change numbers stores new curves, and says so.
The tolerances are those of `rfbench verify`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from rfbench.inference.verify import Curves, Deviation, curves_of, deviations
from rfbench.planning.plan import make_plan
from rfbench.running.folder import RunFolder
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.loading import load_suite

FOLDER = Path(__file__).parent
ALGORITHMS = ("prdp", "ddpo", "dpok", "rwr")
EPOCHS, SHORT_EPOCHS = 4, 2
OVERRIDES = (
    "budget.reward_queries_per_epoch=32",
    "evaluation.every=2",
    "evaluation.sets.seen.num_prompts=8",
    "evaluation.sets.unseen.num_prompts=8",
    "algorithms.dpok.config.batch_size=32",
    "algorithms.dpok.config.value_updates_per_epoch=2",
    "compute.device=cpu",
)
TRAINING_REWARD = ("seen shapes-preference", "unseen shapes-preference")


def curves(label: str, epochs: int, overrides: tuple[str, ...] = ()) -> Curves:
    """What a short run of ``label`` measures: a curve over epochs or evaluations by quantity."""
    suite = load_suite("tiny-shapes", [f"epochs={epochs}", *OVERRIDES, *overrides])
    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder(train(make_plan(suite, label, seed=0), Path(root), Quiet()), writer=False)
        return curves_of(folder.read("metrics"), folder.read("evals"))


def moved_most(label: str, found: Curves) -> Deviation:
    """The point that is farthest from the stored curves."""
    return deviations(stored_curves(label), found, TRAINING_REWARD)[0]


def stored_curves(label: str) -> Curves:
    return json.loads((FOLDER / f"{label}.json").read_text(encoding="utf-8"))


def main() -> int:
    torch.set_num_threads(1)  # as in the tests
    console, write = Console(), "--write" in sys.argv[1:]
    table = Table("variant", "farthest quantity", "stored", "found", "in tolerances", title="golden curves")
    moved = False
    for label in ALGORITHMS:
        found = curves(label, EPOCHS)
        if write:
            text = json.dumps({name: [float(f"{v:.7g}") for v in values] for name, values in found.items()}, indent=1)
            (FOLDER / f"{label}.json").write_text(text + "\n", encoding="utf-8")
        worst = moved_most(label, found)
        moved |= worst.tolerances > 1
        table.add_row(
            label,
            f"{worst.quantity}, point {worst.point}",
            f"{worst.stored:.6g}",
            f"{worst.found:.6g}",
            f"{worst.tolerances:.2f}",
        )
    console.print(table)
    if moved:
        console.print("a curve has moved by more than its tolerance: the science changed")
    return int(moved)


if __name__ == "__main__":
    sys.exit(main())
