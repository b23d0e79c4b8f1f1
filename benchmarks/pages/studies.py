"""Two small studies beside the ladder: differences between prompts added, and 400 epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rfbench.report.render.tables import markdown_row
from rfbench_benchmarks.pages.ends import means

LARGE, ADDED = "large-shapes", ("large-shapes-added", "large-shapes-added-100")  # cut at 250 and at 100 epochs
HEADS = ("seeds", "gain, seen", "gain, unseen", "KL, nats")
EPOCHS = (40, 80, 120, 200, 280, 400)


def differences_table(shipped: Sequence[Path], added: Sequence[Path]) -> str:
    """Each algorithm as shipped and with differences between prompts added, of the seeds that have both."""
    lines = [["algorithm", "differences", "epoch", *HEADS], ["---", "---", "---:", *["---:"] * 4]]
    for variant in ("ddpo", "ddpo-group"):
        moved = [run for run in added if _place(run)[0] in ADDED and _place(run)[1] == variant]
        seeds = {_place(run)[2] for run in moved}
        plain = [run for run in shipped if _place(run)[:2] == (LARGE, variant) and _place(run)[2] in seeds]
        for what, runs in (("as they are", plain), ("added", moved)):
            lines.append([f"`{variant}`", what, "100", *means(runs, 100)])
        if _place(moved[0])[0] == ADDED[0]:
            lines.append([f"`{variant}`", "added", "250", *means(moved)])
    return "\n".join(map(markdown_row, lines))


def horizon_table(runs: Sequence[Path]) -> str:
    """How far each algorithm was at some epochs of 400."""
    lines = [["algorithm", "epoch", *HEADS], ["---", "---:", *["---:"] * 4]]
    for variant in sorted({_place(run)[1] for run in runs}):
        of_variant = [run for run in runs if _place(run)[1] == variant]
        lines += [[f"`{variant}`", str(epoch), *means(of_variant, epoch)] for epoch in EPOCHS]
    return "\n".join(map(markdown_row, lines))


def _place(run: Path) -> tuple[str, str, str]:
    """Suite, variant and seed of a run's folder."""
    return run.parts[-3], run.parts[-2], run.parts[-1]
