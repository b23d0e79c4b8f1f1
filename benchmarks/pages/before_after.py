"""docs/images/before-after.png: the same prompts and noise, drawn by the base model and by what two methods made of it.

    python -m rfbench_benchmarks.pages.before_after
    python -m rfbench_benchmarks.pages.before_after --runs arena/small-shapes-flow-arena --variants crd nft \\
        --set seen --picture docs/images/before-after-flow.png

The last evaluation of seed 0; by default on prompts that training never drew. Under each image stands its training
reward.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from PIL import Image

from rfbench.report.load import load
from rfbench.report.render.page.gallery import read_samples
from rfbench_benchmarks.pages.tables import RESULTS, ROOT

PROMPTS = 5  # the first ones


def tiles(path: Path, prompt_set: str, at_end: bool) -> tuple[list[str], list[Image.Image], list[list[float]]]:
    """The prompts, each prompt's images side by side, and each image's reward, of a run before training or after it."""
    samples = read_samples(path, path.parent.name, 0, load([path]).evals)
    if samples is None:
        raise SystemExit(f"{path} has no samples")
    files = samples.files[prompt_set]
    at = max(files) if at_end else 0
    with Image.open(files[at]) as grid:
        rows = [grid.crop((0, row * samples.tile, grid.width, (row + 1) * samples.tile)) for row in range(PROMPTS)]
    return samples.prompts[prompt_set], rows, samples.scores[prompt_set][at].values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / RESULTS / "large-shapes", help="of a suite")
    parser.add_argument("--variants", nargs=2, default=["prdp", "ddpo-group"])
    parser.add_argument("--set", default="unseen")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "before-after.png")
    options = parser.parse_args()
    first, second = options.variants
    columns = (("base model", first, False), (first, first, True), (second, second, True))
    figure, axes = plt.subplots(
        PROMPTS, 1 + len(columns), figsize=(7.6, 5.4), width_ratios=[1.5, *(1 for _ in columns)], dpi=110
    )
    for column, (title, variant, at_end) in enumerate(columns, start=1):
        prompts, pictures, scores = tiles(options.runs / variant / "seed-0", options.set, at_end)
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
    figure.savefig(options.picture)
    print(f"written: {options.picture}")


if __name__ == "__main__":
    main()
