"""A guard for the science: a short fixed run of each algorithm must follow the curve that is stored beside this file.

    python -m tests.golden.curves             # compare (`make golden`); exit code 1 where a curve has moved
    python -m tests.golden.curves --write     # store the curves of this code

A refactoring changes nothing here. A change that is meant to change numbers stores new curves, and says so.
The tolerances are for other machines and versions of torch, whose sums differ in their last bits; those differences
grow from epoch to epoch, where one falls on the other side of a clip. Between AVX-512 and AVX2 kernels, four epochs
moved DDPO by 0.15 tolerances and the others by less; a fifth and sixth moved DDPO by 1.1.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

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
    "algorithms.dpok.config.value_updates_per_epoch=2",
    "compute.device=cpu",
)
METRICS = ("reward_mean", "reward_std_within_prompt", "grad_norm")
RELATIVE_TOLERANCE = {"reward_mean": 0.002, "shapes-preference": 0.002}
DEFAULT_RELATIVE_TOLERANCE = 0.05  # of spreads, norms, the KL, and gold, which counts attributes

Curves = dict[str, list[float]]


def curves(label: str, epochs: int, overrides: tuple[str, ...] = ()) -> Curves:
    """What a short run of ``label`` measures: a curve over epochs or evaluations by quantity."""
    suite = load_suite("tiny-shapes", [f"epochs={epochs}", *OVERRIDES, *overrides])
    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder(train(make_plan(suite, label, seed=0), Path(root), Quiet()), writer=False)
        metrics, evals = folder.read("metrics"), folder.read("evals")
    values = {name: [getattr(record, name) for record in metrics] for name in METRICS}
    found = {name: [value for value in curve if value is not None] for name, curve in values.items()}
    for record in evals:
        found.setdefault(f"{record.evaluation_set} {record.measure}", []).append(record.mean)
    return found


def deviations(stored: Curves, found: Curves) -> list[dict[str, Any]]:
    """Of each quantity, the point that is farthest from the stored curve, in units of its tolerance; the worst first.

    ``found`` may end earlier than ``stored``.
    """
    rows = []
    for name in stored.keys() | found.keys():
        if name not in stored or name not in found:
            rows.append({"quantity": name, "point": 0, "stored": math.nan, "found": math.nan, "tolerances": math.inf})
            continue
        relative = RELATIVE_TOLERANCE.get(name.rpartition(" ")[2], DEFAULT_RELATIVE_TOLERANCE)
        scale = relative * max(map(abs, stored[name])) or 1e-12
        points = zip(stored[name], found[name], strict=False)
        away, point = max((abs(before - now) / scale, point) for point, (before, now) in enumerate(points))
        rows.append(
            {
                "quantity": name,
                "point": point,
                "stored": stored[name][point],
                "found": found[name][point],
                "tolerances": away,
            }
        )
    return sorted(rows, key=lambda row: -row["tolerances"])


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
        worst = deviations(stored_curves(label), found)[0]
        moved |= worst["tolerances"] > 1
        table.add_row(
            label,
            f"{worst['quantity']}, point {worst['point']}",
            f"{worst['stored']:.6g}",
            f"{worst['found']:.6g}",
            f"{worst['tolerances']:.2f}",
        )
    console.print(table)
    if moved:
        console.print("a curve has moved by more than its tolerance: the science changed")
    return int(moved)


if __name__ == "__main__":
    sys.exit(main())
