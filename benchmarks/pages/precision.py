"""What rounding does to clips: PRDP at K = 1 with recomputed log-probs, and PRDP and DDPO at a second step.

A cell of the first is a suite and a variant. In fp32, where a clip that cannot bind changes no bit, `prdp-k1` of the
ladder has the same settings. The second is of `precision/fixed_policy.py`. The protocol is in benchmarks/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from rfbench.report.render.tables import markdown_row
from rfbench.running.folder import RunFolder
from rfbench_benchmarks.pages import ladder
from rfbench_benchmarks.precision.measure import LAST_LAYER, PLAIN

CELLS = {
    "fp32": ("large-shapes", "prdp-k1"),
    "bf16, no clip": ("precision-bf16", "prdp-recomputed-no-clip"),
    "bf16, clip 1e-3": ("precision-bf16", "prdp-recomputed"),
}
CONTRASTS = (
    ("the clip, in bf16", "bf16, no clip", "bf16, clip 1e-3"),
    ("bf16 without a clip, for fp32", "fp32", "bf16, no clip"),
    ("bf16 with the clip, for fp32", "fp32", "bf16, clip 1e-3"),
)
ROUNDING = ("start error", "log-ratios clipped", "pairs clipped")
POLICIES = {"fixed-policy-base": "base model's", "fixed-policy-trained": "trained"}  # folders of the second
ENDS = ("seeds", "gain, seen", "gain, unseen", "KL, nats", "largest drop")


def read(runs: Sequence[Path]) -> ladder.Ladder:
    """The runs of all suites as one ladder, whose cells are those of `CELLS`."""
    found = {suite: ladder.read(runs, suite) for suite in sorted({suite for suite, _ in CELLS.values()})}
    ends = {
        outcome: {cell: found[suite].ends[outcome].get(variant, {}) for cell, (suite, variant) in CELLS.items()}
        for outcome in ladder.OUTCOMES
    }
    lows = [
        found[suite].lows.filter(variant=variant).with_columns(variant=pl.lit(cell))
        for cell, (suite, variant) in CELLS.items()
    ]
    return ladder.Ladder(ends, pl.concat(lows))


def cells_table(runs: Sequence[Path]) -> str:
    """A row for each cell: what rounding did, means over epochs and seeds, and what came of it."""
    found = read(runs)
    drops = dict(found.lows.select("variant", "drawdown").iter_rows())
    lines = [["cell", *ROUNDING, *ENDS], ["---", *["---:"] * (len(ROUNDING) + len(ENDS))]]
    for cell, place in CELLS.items():
        records = [r for run in runs if run.parts[-3:-1] == place for r in RunFolder(run, writer=False).read("metrics")]
        metrics = [record.model_dump() for record in records]
        mean = {name: np.mean([m[name] for m in metrics]) for name in ("start_error", "clip_fraction", "clipped_pairs")}
        shares = [f"{mean['clip_fraction']:.2%}", f"{mean['clipped_pairs']:.2%}"]
        gains = [f"{np.mean(list(found.ends[name][cell].values())):+.2f}" for name in ("seen", "unseen")]
        kl = f"{np.mean(list(found.ends['KL'][cell].values())):.0f}"
        seeds = str(len(found.ends["seen"][cell]))
        lines.append([f"`{cell}`", f"{mean['start_error']:.1e}", *shares, seeds, *gains, kl, f"{drops[cell]:.2f}"])
    return "\n".join(map(markdown_row, lines))


def second_step_table(folder: Path) -> str:
    """A row for each algorithm, policy and precision, with the network's last layer in the precision and in fp32."""
    pairs = [
        f"{head}{last}" for head in ("its error", "cosine to fp32's gradient") for last in ("", ", last layer in fp32")
    ]
    lines = [
        ["algorithm", "policy", "precision", "clip", "l_t in the step", *pairs[:2], "decisions changed", *pairs[2:]]
    ]
    lines.append(["---", "---", "---", *["---:"] * 7])
    results = {name: json.loads((folder / name / "table.json").read_text())["algorithms"] for name in POLICIES}
    for algorithm in results[next(iter(POLICIES))]:
        for name, policy in POLICIES.items():
            found = results[name][algorithm]
            rows = {(row["precision"], row["remedy"]): row for row in found["rows"]}
            for precision in ("bf16", "fp16"):
                plain, last = rows[precision, PLAIN], rows[precision, LAST_LAYER]
                errors = [f"{row['log_ratio_error_std']:.1e}" for row in (plain, last)]
                cosines = [f"{row['cosine']:.3f}" for row in (plain, last)]
                cells = [precision, f"{found['clip_range']:g}", f"{found['log_ratio_std']:.1e}", *errors]
                lines.append([f"`{algorithm}`", policy, *cells, f"{plain['decisions_changed']:.1%}", *cosines])
    return "\n".join(map(markdown_row, lines))
