"""Sample images: one fixed grid per evaluation and prompt set, prompts down the rows, and the score of each tile."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch
from PIL import Image

from rfbench.core.evaluation import SetResult
from rfbench.files import write_atomically


def save(folder: Path, epoch: int, results: list[SetResult], prompts: dict[str, list[str]]) -> None:
    """Writes ``epoch-<n>-<set>.png`` for every set, and ``index.json`` with the prompts of the rows.

    Beside each picture, as ``.json``, the training reward of its tiles, row by row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = {
        "prompts": {result.name: prompts[result.name][: len(result.grid)] for result in results},
        "images_per_prompt": {result.name: result.grid.shape[1] for result in results},
        "tile": results[0].grid.shape[-1],
    }
    write_atomically(folder / "index.json", json.dumps(index, indent=2).encode())
    for result in results:
        path, png = folder / f"epoch-{epoch:04d}-{result.name}.png", io.BytesIO()
        picture(result.grid).save(png, "PNG")
        write_atomically(path, png.getvalue())
        write_scores(path, result.scored_by, result.grid_scores)


def write_scores(picture: Path, measure: str, scores: torch.Tensor) -> None:
    """The scores ``(rows, columns)`` of a grid's tiles, beside it."""
    rows = [[float(f"{value:.5g}") for value in row] for row in scores.tolist()]
    write_atomically(picture.with_suffix(".json"), json.dumps({"measure": measure, "scores": rows}).encode())


def picture(grid: torch.Tensor) -> Image.Image:
    """One RGB image of a grid ``(rows, columns, 3, H, W)`` uint8."""
    rows, columns, channels, height, width = grid.shape
    pixels = grid.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    return Image.fromarray(pixels.numpy(), mode="RGB")
