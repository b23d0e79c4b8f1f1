"""Sample images for the page: the same prompts and noise down the rows, base and algorithms across, through the epochs.

A run saves one grid per evaluation and prompt set (`samples/epoch-0005-seen.png`, prompts down, noise across). The page
shows one run per algorithm, the base model first and then the one that ends best, each tile with its score. Each grid
becomes one small picture, cut to the rows and columns shown; the page's cells are windows onto it. Steps of `LEVELS`
are taken until the whole fits `BUDGET`, and what was left out is said.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from PIL import Image

from rfbench.report.frames import decimals
from rfbench.report.load import Runs

BUDGET = 8_000_000  # bytes of pictures in one page, encoded
LEVELS = ((6, 2, 25), (5, 2, 12), (4, 2, 8), (3, 1, 6), (2, 1, 3), (1, 1, 2))  # prompts, images per prompt, epochs
SMALL_TILE, THUMBNAIL = 96, 144  # pixels: a tile up to SMALL_TILE is kept as it is, a larger one becomes a THUMBNAIL
LONGEST_PROMPT = 240  # characters
FILE = re.compile(r"epoch-(\d+)-(.+)\.png")


class Scores(NamedTuple):
    """What one evaluation scored: for each prompt a value per tile, or one value, the mean of its `images`.

    The prompts are those of the grid, or more.
    """

    measure: str
    images: int
    values: list[list[float]]


@dataclass(frozen=True)
class Samples:
    """The sample grids of one run, `files[prompt set][epoch]`, and what the reward said of the same images."""

    algorithm: str
    seed: int
    prompts: dict[str, list[str]]
    tile: int
    files: dict[str, dict[int, Path]]
    scores: dict[str, dict[int, Scores]]


@dataclass(frozen=True)
class PromptSet:
    """One gallery: `pictures[column][epoch]` is a data URI; the column "base model" has epoch 0 alone.

    `scores[column][epoch]` has the rewards of each prompt, where they were recorded (`Scores`); `note` says of what.
    """

    name: str
    prompts: list[str]
    images_per_prompt: int
    pixelated: bool
    pictures: dict[str, dict[int, str]]
    scores: dict[str, dict[int, list[list[float]]]]
    note: str

    @property
    def columns(self) -> list[dict[str, list[Any]]]:
        """What the page's script needs of each column: its epochs, their pictures and their scores."""
        digits = decimals(
            [pl.Series(row) for of in self.scores.values() for rows in of.values() for row in rows if row]
        )
        return [
            {
                "epochs": list(own),
                "pictures": list(own.values()),
                "scores": [
                    [[f"{s:.{digits}f}" for s in row] for row in self.scores.get(column, {}).get(epoch, [])]
                    for epoch in own
                ],
            }
            for column, own in self.pictures.items()
        ]

    @property
    def size(self) -> int:
        return sum(len(uri) for column in self.pictures.values() for uri in column.values())


@dataclass(frozen=True)
class Gallery:
    """The galleries of one suite, which share a slider over `epochs`."""

    suite: str
    epochs: list[int]
    sets: list[PromptSet]
    note: str


def galleries(runs: Runs, rankings: dict[str, list[str]], budget: int = BUDGET) -> list[Gallery]:
    """One gallery per suite of `runs` that saved samples, together within `budget`.

    `rankings` has each suite's algorithms, in the order in which they are shown.
    """
    found = []
    for (suite,), group in runs.runs.sort("suite", "seed").group_by("suite", maintain_order=True):
        samples = _one_per_algorithm(group, rankings[str(suite)], runs.evals)
        if samples:
            found.append((str(suite), samples))
    made: list[Gallery] = []
    for level in LEVELS:
        made = [_gallery(suite, samples, *level) for suite, samples in found]
        if sum(prompt_set.size for gallery in made for prompt_set in gallery.sets) <= budget:
            return made
    return []


def _one_per_algorithm(runs: pl.DataFrame, ranking: list[str], evals: pl.DataFrame) -> list[Samples]:
    chosen = []
    for variant in ranking:
        for run, seed in runs.filter(pl.col("variant") == variant).select("run", "seed").iter_rows():
            samples = read_samples(Path(run), variant, seed, evals.filter(pl.col("run") == run))
            if samples is not None:
                chosen.append(samples)
                break
    return chosen


def read_samples(run: Path, algorithm: str, seed: int, evals: pl.DataFrame) -> Samples | None:
    """What a run saved, with the scores among its evaluations; None where it saved nothing that can be shown."""
    folder = run / "samples"
    try:
        index = json.loads((folder / "index.json").read_bytes())
        prompts = {str(name): [str(p) for p in rows] for name, rows in index["prompts"].items()}
        tile = int(index["tile"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    files: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = FILE.fullmatch(path.name)
        if match and match[2] in prompts:
            files.setdefault(match[2], {})[int(match[1])] = path
    scores = _scores(evals)
    for name, pictures in files.items():
        for epoch, picture in pictures.items():
            if (tiles := _tile_scores(picture, len(prompts[name]))) is not None:
                scores.setdefault(name, {})[epoch] = tiles
    return Samples(algorithm, seed, prompts, tile, files, scores) if files and tile > 0 else None


def _tile_scores(picture: Path, prompts: int) -> Scores | None:
    """The scores beside a grid; None where there are none that fit it."""
    try:
        found = json.loads(picture.with_suffix(".json").read_bytes())
        values = [[float(value) for value in row] for row in found["scores"]]
        measure = str(found["measure"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    fits = len(values) == prompts and all(math.isfinite(value) for row in values for value in row)
    return Scores(measure, 1, values) if fits else None


def _scores(evals: pl.DataFrame) -> dict[str, dict[int, Scores]]:
    """By prompt set and epoch: the mean of each prompt's images in the first training reward."""
    trained = evals.filter(pl.col("role") == "training")
    found: dict[str, dict[int, Scores]] = {}
    if trained.is_empty():
        return found
    for row in trained.filter(measure=trained["measure"][0]).iter_rows(named=True):
        values = row["per_prompt"] or []
        images = row["images"] // len(values) if values else 0
        found.setdefault(row["evaluation_set"], {})[row["epoch"]] = Scores(
            row["measure"], images, [[value] for value in values]
        )
    return found


def _gallery(suite: str, samples: list[Samples], rows: int, columns: int, steps: int) -> Gallery:
    epochs = sorted({epoch for s in samples for files in s.files.values() for epoch in files})
    shown = thin(epochs, steps)
    names = list(dict.fromkeys(name for s in samples for name in s.files))
    sets = [_prompt_set(name, samples, shown, rows, columns) for name in names]
    seeds = {s.seed for s in samples}
    which = ", ".join(f"{s.algorithm} seed {s.seed}" for s in samples) if len(seeds) > 1 else f"seed {min(seeds)}"
    note = f"One run each: {which}. The noise of a row is the same everywhere."
    longest = max((len(s.prompts[name]) for s in samples for name in s.files), default=0)
    if longest > rows:
        note += f" Shown: the first {rows} of up to {longest} prompts."
    if len(epochs) > len(shown):
        note += f" {len(shown)} of {len(epochs)} evaluations."
    return Gallery(suite, shown, [prompt_set for prompt_set in sets if prompt_set.pictures], note)


def thin(epochs: list[int], steps: int) -> list[int]:
    """At most `steps` of them, evenly, the first and the last among them."""
    if len(epochs) <= steps:
        return epochs
    return [epochs[round(i * (len(epochs) - 1) / (steps - 1))] for i in range(steps)]


def _prompt_set(name: str, samples: list[Samples], epochs: list[int], rows: int, columns: int) -> PromptSet:
    """Runs whose prompts or tiles differ from the first run's are left out: their rows would not be the same."""
    first = next(s for s in samples if name in s.files)
    pictures: dict[str, dict[int, str]] = {}
    scores: dict[str, dict[int, list[list[float]]]] = {}
    prompts = [shorten(prompt) for prompt in first.prompts[name][:rows]]
    across = columns
    for s in samples:
        if s.prompts.get(name) != first.prompts[name] or s.tile != first.tile:
            continue
        for epoch in epochs:
            path = s.files.get(name, {}).get(epoch)
            picture = None if path is None else picture_uri(path, s.tile, len(first.prompts[name]), rows, columns)
            if picture is not None:
                across = min(across, picture[1])
                column = "base model" if epoch == 0 else s.algorithm
                pictures.setdefault(column, {}).setdefault(epoch, picture[0])
                if epoch in s.scores.get(name, {}):
                    scores.setdefault(column, {}).setdefault(epoch, s.scores[name][epoch].values[: len(prompts)])
    ordered = {
        column: pictures[column] for column in ["base model", *(s.algorithm for s in samples)] if column in pictures
    }
    return PromptSet(name, prompts, across, first.tile <= SMALL_TILE, ordered, scores, _scored(name, samples, across))


def _scored(name: str, samples: list[Samples], across: int) -> str:
    """What the scores of a prompt set are of; empty where none were recorded."""
    found = next((scores for s in samples for scores in s.scores.get(name, {}).values() if scores.values), None)
    if found is None:
        return ""
    more = (
        "" if found.images <= across else f", of which {across} are shown" if across > 1 else ", of which one is shown"
    )
    of = "the image" if found.images == 1 else f"mean of the prompt's {found.images} images{more}"
    return f"Scores: {found.measure}, {of}."


def picture_uri(path: Path, tile: int, prompts: int, rows: int, columns: int) -> tuple[str, int] | None:
    """(data URI of the first `rows` x `columns` tiles, columns there are), or None for a picture that is damaged."""
    try:
        with Image.open(path) as grid:
            across = min(columns, grid.width // tile)
            down = min(rows, prompts)
            if across == 0 or grid.height < down * tile:
                return None
            cut = grid.convert("RGB").crop((0, 0, across * tile, down * tile))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    buffer = io.BytesIO()
    if tile > SMALL_TILE:
        cut = cut.resize((across * THUMBNAIL, down * THUMBNAIL), Image.Resampling.LANCZOS)
        cut.save(buffer, "WEBP", quality=75)
    else:
        cut.save(buffer, "WEBP", lossless=True, quality=60)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", across


def shorten(prompt: str) -> str:
    """A prompt that fits a page, with its true length when cut."""
    if len(prompt) <= LONGEST_PROMPT:
        return prompt
    return f"{prompt[:LONGEST_PROMPT]}… ({len(prompt):,} characters)"
