"""The trials of `rfbench tune`, every algorithm's: settings, gain on the tuning prompts, and which was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rfbench.plugins import registry
from rfbench.report.render.tables import markdown_row
from rfbench.running.folder import RunFolder
from rfbench.sweeps.tuning import SET, declared_ranges

MARK = "-trial-"


def trials_table(runs: Sequence[Path]) -> str:
    """A row for each trial, the chosen one of each algorithm in bold."""
    lines = [["algorithm", "learning rate", "settings", "gain after 6 epochs", "after 12", "mean", "KL, nats"]]
    lines.append(["---", "---:", "---", *["---:"] * 4])
    for algorithm, group in groupby(runs, lambda run: run.parent.name.partition(MARK)[0]):
        rows = [_row(run, algorithm) for run in group]
        best = max(row["mean"] for row in rows)
        for row in rows:
            numbers = [f"{gain:+.2f}" for gain in (*row["gains"], row["mean"])]
            cells = [algorithm, f"{row['rate']:.3g}", row["settings"], *numbers, f"{row['kl']:.0f}"]
            lines.append([f"**{cell}**" for cell in cells] if row["mean"] == best else cells)
    return "\n".join(map(markdown_row, lines))


def _row(run: Path, algorithm: str) -> dict[str, Any]:
    folder = RunFolder(run, writer=False)
    variant = folder.require_run().suite["algorithms"][run.parent.name]
    searched = declared_ranges(registry.find("algorithms", algorithm).Config)
    records = [record for record in folder.read("evals") if record.evaluation_set == SET]
    means = {record.epoch: record.mean for record in records if record.role == "training"}
    gains = [means[epoch] - means[0] for epoch in sorted(means) if epoch]
    return {
        "rate": variant["optimizer"]["learning_rate"],
        "settings": ", ".join(f"{name} {variant['config'][name]:g}" for name in searched),
        "gains": gains,
        "mean": sum(gains) / len(gains),
        "kl": [record.mean for record in records if record.measure == "kl"][-1],
    }
