"""docs/images/before-after.png: the same prompts and noise, drawn by the base model and by what two methods made of it.

    python -m rfbench_benchmarks.pages.before_after

Prompts that training never drew, the last evaluation of seed 0. Under each image stands its training reward.
"""

from __future__ import annotations

import textwrap

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from PIL import Image

from rfbench.report.load import load
from rfbench.report.render.page.gallery import read_samples
from rfbench_benchmarks.pages.tables import ROOT

SUITE, SET = "large-shapes", "unseen"
COLUMNS = (("base model", "prdp", 0), ("prdp", "prdp", None), ("ddpo-group", "ddpo-group", None))  # title, run, epoch
PROMPTS = 5  # the first ones


def tiles(variant: str, epoch: int | None) -> tuple[list[str], list[Image.Image], list[list[float]]]:
    """The prompts, each prompt's images side by side, and each image's reward at an epoch; None: the last one."""
    path = ROOT / "results" / "reference" / SUITE / variant / "seed-0"
    samples = read_samples(path, variant, 0, load([path]).evals)
    if samples is None:
        raise SystemExit(f"{path} has no samples")
    files = samples.files[SET]
    at = max(files) if epoch is None else epoch
    with Image.open(files[at]) as grid:
        rows = [grid.crop((0, row * samples.tile, grid.width, (row + 1) * samples.tile)) for row in range(PROMPTS)]
    return samples.prompts[SET], rows, samples.scores[SET][at].values


def main() -> None:
    figure, axes = plt.subplots(
        PROMPTS, 1 + len(COLUMNS), figsize=(7.6, 5.4), width_ratios=[1.5, *(1 for _ in COLUMNS)], dpi=110
    )
    for column, (title, variant, epoch) in enumerate(COLUMNS, start=1):
        prompts, pictures, scores = tiles(variant, epoch)
        for row in range(PROMPTS):
            axis = axes[row, column]
            axis.imshow(pictures[row], interpolation="nearest")
            for image, score in enumerate(scores[row]):
                place = (image + 0.5) / len(scores[row])
                axis.text(place, -0.06, f"{score:.1f}", fontsize=8, ha="center", va="top", transform=axis.transAxes)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            text = axes[row, 0]
            text.axis("off")
            text.text(0, 0.5, "\n".join(textwrap.wrap(prompts[row], 34)), fontsize=8, va="center")
        axes[0, column].set_title(title, fontsize=9, fontweight="bold", pad=8)
    figure.subplots_adjust(left=0.02, right=0.99, top=0.93, bottom=0.04, hspace=0.32, wspace=0.06)
    target = ROOT / "docs" / "images" / "before-after.png"
    figure.savefig(target)
    print(f"written: {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
