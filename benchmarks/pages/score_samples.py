"""The training reward of every tile of sample grids that were kept without: scored from the pictures themselves.

    python -m rfbench_benchmarks.pages.score_samples results/reference

The embedded worlds' tiles are kept as they were scored, pixel for pixel. Where a grid shows all images of its prompts,
each prompt's mean must be the recorded one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rfbench.plugins.component import find_component
from rfbench.report.load import load
from rfbench.report.render.page.gallery import read_samples
from rfbench.running import grids
from rfbench.suite.suite import Suite

TOLERANCE = 1e-3  # logits: sums of another machine


def tiles(picture: Path, tile: int) -> torch.Tensor:
    """uint8 ``(rows, columns, 3, tile, tile)`` of a grid's file."""
    with Image.open(picture) as grid:
        pixels = torch.from_numpy(np.array(grid.convert("RGB")))
    rows, columns = pixels.shape[0] // tile, pixels.shape[1] // tile
    return pixels.view(rows, tile, columns, tile, 3).permute(0, 2, 4, 1, 3)


def score(run: Path) -> int:
    """Writes the scores beside the grids of one run; how many grids there were."""
    samples = read_samples(run, run.parent.name, 0, load([run]).evals)
    if samples is None:
        return 0
    record = json.loads((run / "run.json").read_bytes())
    settings = Suite.model_validate(record["suite"]).reward
    reward = find_component("rewards", settings).make(torch.device("cpu"))
    for name, pictures in samples.files.items():
        for epoch, picture in pictures.items():
            images = tiles(picture, samples.tile)
            rows, columns = images.shape[:2]
            prompts = [prompt for prompt in samples.prompts[name] for _ in range(columns)]
            scores = reward(images.flatten(0, 1).contiguous(), prompts).view(rows, columns)
            recorded = samples.scores[name][epoch]
            if recorded.images == columns:
                means = torch.tensor([row[0] for row in recorded.values[:rows]])
                if (scores.mean(1) - means).abs().max() > TOLERANCE:
                    raise SystemExit(f"{picture}: the tiles score {scores.mean(1).tolist()}, recorded {means.tolist()}")
            grids.write_scores(picture, settings.name, scores)
    return sum(map(len, samples.files.values()))


def main() -> None:
    total = sum(score(run.parent) for run in sorted(Path(sys.argv[1]).rglob("run.json")))
    print(f"{total} grids scored")


if __name__ == "__main__":
    main()
