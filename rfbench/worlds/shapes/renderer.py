"""Scenes to 32x32 RGB pictures: signed distance fields with one pixel of anti-aliasing, batched in torch.

Coordinates are pixels, x to the right and y down, (0, 0) the picture's upper left corner. The outermost pixel on each
side always shows the background, whatever the jitter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rfbench.worlds.shapes.grammar import COLOURS, PATTERNS, POSITIONS, RELATIONS, SHAPES, Scene, Single

SIDE = 32
GRID = (9.75, 16.0, 22.25)  # centres of the three columns and rows of positions
RADIUS = {"small": 4.5, "large": 7.1}  # half the width and height of every shape
PAIR_RADIUS = 5.4
PAIR_OFFSET = 7.0  # of each of two objects from the middle
CENTRE_JITTER = 0.6
RADIUS_JITTER = 0.3

_RGB = {  # colour: (itself, its shade in patterns)
    "red": ((220, 40, 40), (140, 15, 20)),
    "orange": ((255, 150, 30), (190, 90, 0)),
    "yellow": ((250, 230, 60), (185, 170, 20)),
    "green": ((50, 180, 60), (20, 110, 30)),
    "blue": ((50, 90, 230), (25, 45, 145)),
    "purple": ((170, 70, 210), (105, 30, 135)),
    "white": ((245, 245, 245), (175, 175, 180)),
    "black": ((20, 20, 20), (85, 85, 85)),
}
PALETTE = torch.tensor([_RGB[colour][0] for colour in COLOURS], dtype=torch.float32)  # (colours, 3) in 0..255
SHADES = torch.tensor([_RGB[colour][1] for colour in COLOURS], dtype=torch.float32)  # (colours, 3) in 0..255


def _pattern_masks() -> Tensor:
    """Where each pattern is shaded: (patterns, SIDE, SIDE) of 0 and 1, in the order of PATTERNS."""
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    masks = {
        "plain": torch.zeros(SIDE, SIDE, dtype=torch.bool),
        "striped": row % 8 < 4,
        "dotted": (row % 8 < 4) & (column % 8 < 4),
        "checkered": (row // 4 + column // 4) % 2 == 0,
    }
    return torch.stack([masks[pattern] for pattern in PATTERNS]).float()


PATTERN_MASKS = _pattern_masks()


def coverage(shape: str, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Which fraction of the pixel at (x, y), relative to the shape's centre, the shape covers; tensors broadcast."""
    return (0.5 - _distance(shape, x, y, radius)).clamp(0, 1)


def _distance(shape: str, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Signed distance to the outline in pixels, negative inside (a lower bound of it beyond corners)."""
    if shape == "circle":
        return torch.hypot(x, y) - radius
    if shape == "ring":
        return (torch.hypot(x, y) - 0.75 * radius).abs() - 0.25 * radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - radius
    if shape == "diamond":
        return (x.abs() + y.abs() - radius) / 2**0.5
    if shape == "triangle":
        return torch.maximum(y - radius, (2 * x.abs() - y - radius) / 5**0.5)
    if shape == "cross":
        arm = 0.36 * radius
        across = torch.maximum(x.abs() - radius, y.abs() - arm)
        upright = torch.maximum(x.abs() - arm, y.abs() - radius)
        return torch.minimum(across, upright)
    raise ValueError(f"unknown shape {shape!r}: choose one of {', '.join(SHAPES)}")


def render(scenes: Sequence[Scene], generator: torch.Generator) -> Tensor:
    """Pictures of the scenes, uint8 (scenes, 3, SIDE, SIDE); centres and radii jitter by draws from `generator`."""
    background = torch.tensor([COLOURS.index(scene.background) for scene in scenes])
    pattern = torch.tensor([PATTERNS.index(scene.pattern) for scene in scenes])
    shaded = PATTERN_MASKS[pattern][:, None]  # (scenes, 1, SIDE, SIDE)
    canvas = torch.lerp(PALETTE[background][:, :, None, None], SHADES[background][:, :, None, None], shaded)
    layers = [_objects(scene) for scene in scenes]
    for layer in range(2):
        rows = [row for row, objects in enumerate(layers) if layer < len(objects)]
        jitter = 2 * torch.rand(len(scenes), 3, generator=generator) - 1  # for all, so that no row depends on another
        if rows:
            _paint(canvas, torch.tensor(rows), [layers[row][layer] for row in rows], jitter[rows])
    return canvas.round().to(torch.uint8)


def _objects(scene: Scene) -> list[tuple[str, str, float, float, float]]:
    """(shape, colour, x, y, radius) of each object."""
    if isinstance(scene, Single):
        row, column = divmod(POSITIONS.index(scene.position), 3)
        return [(scene.shape, scene.colour, GRID[column], GRID[row], RADIUS[scene.size])]
    middle = SIDE / 2
    dx, dy = ((-PAIR_OFFSET, 0.0), (PAIR_OFFSET, 0.0), (0.0, -PAIR_OFFSET), (0.0, PAIR_OFFSET))[
        RELATIONS.index(scene.relation)
    ]
    return [
        (scene.shape, scene.colour, middle + dx, middle + dy, PAIR_RADIUS),
        (scene.second_shape, scene.second_colour, middle - dx, middle - dy, PAIR_RADIUS),
    ]


def _paint(
    canvas: Tensor, rows: Tensor, objects: Sequence[tuple[str, str, float, float, float]], jitter: Tensor
) -> None:
    """Draw one object into each of `rows` of the canvas, in place; jitter is (rows, 3) in -1..1."""
    centre = torch.tensor([[x, y] for _, _, x, y, _ in objects]) + CENTRE_JITTER * jitter[:, :2]
    radius = torch.tensor([radius for *_, radius in objects]) + RADIUS_JITTER * jitter[:, 2]
    colour = PALETTE[[COLOURS.index(colour) for _, colour, *_ in objects]]
    middles = torch.arange(SIDE) + 0.5
    for shape in SHAPES:
        own = torch.tensor([index for index, item in enumerate(objects) if item[0] == shape], dtype=torch.long)
        x = middles[None, None, :] - centre[own, 0, None, None]
        y = middles[None, :, None] - centre[own, 1, None, None]
        alpha = coverage(shape, x, y, radius[own, None, None])[:, None]  # (own, 1, SIDE, SIDE)
        where = rows[own]
        canvas[where] = torch.lerp(canvas[where], colour[own][:, :, None, None], alpha)
