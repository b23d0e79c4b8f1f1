"""What pretraining sees: scenes of the `train` split only, and their one-attribute mutants."""

from __future__ import annotations

from dataclasses import asdict, fields

import torch
from torch import Tensor

from rfbench.worlds.shapes.grammar import (  # fmt: skip
    COLOURS,
    NUM_SINGLES,
    PATTERNS,
    POSITIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    index_of,
    is_unseen,
    scene_at,
    split,
)

_WORDS = {
    "size": SIZES, "colour": COLOURS, "shape": SHAPES, "position": POSITIONS, "relation": RELATIONS,
    "second_colour": COLOURS, "second_shape": SHAPES, "background": COLOURS, "pattern": PATTERNS,
}  # fmt: skip


def draw_scenes(count: int, generator: torch.Generator) -> list[Scene]:
    """Scenes of the `train` split with replacement; single objects and pairs are equally likely."""
    indices = torch.from_numpy(split("train").indices)
    num_singles = int((indices < NUM_SINGLES).sum())
    single = torch.rand(count, generator=generator) < 0.5
    place = torch.rand(count, generator=generator, dtype=torch.float64)
    rows = torch.where(single, place * num_singles, num_singles + place * (len(indices) - num_singles)).long()
    return [scene_at(index) for index in indices[rows].tolist()]


def mutant(scene: Scene, generator: torch.Generator) -> Scene:
    """The scene with one attribute changed, again of the `train` split."""
    names = [field.name for field in fields(scene)]
    while True:
        name = names[_below(len(names), generator)]
        words = _WORDS[name]
        changed = type(scene)(**asdict(scene) | {name: words[_below(len(words), generator)]})
        if changed != scene and len(set(changed.colours)) == len(changed.colours) and not is_unseen(index_of(changed)):
            return changed


def _below(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (1,), generator=generator))


def to_signed(pictures: Tensor) -> Tensor:
    """8-bit pixels as the VAE takes them, in -1..1."""
    return pictures.float() / 127.5 - 1


def to_pixels(signed: Tensor) -> Tensor:
    """What the VAE gives, as 8-bit pixels."""
    return ((signed + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
