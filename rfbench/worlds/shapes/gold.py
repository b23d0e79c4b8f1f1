"""The gold scorer: reads a picture's attributes from its pixels by fixed rules and compares them with the prompt.

What is read never depends on what the prompt says, except for the number of objects to look for and, with two, which
of the two found is called the first. A score is the share of a prompt's attributes that are right: for one object 6
(size, colour, shape, position, background, pattern), for two 7 (colours, shapes, relation, background, pattern).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rfbench.worlds.shapes.grammar import COLOURS, PATTERNS, POSITIONS, RELATIONS, SHAPES, SIZES, Pair, Scene, parse
from rfbench.worlds.shapes.renderer import GRID, PALETTE, PATTERN_MASKS, SHADES, SIDE, coverage

NOTHING = "none"  # read where no object is found
_BORDER = 2  # pixels on each side that vote for the background's colour
_MIN_PIXELS = 12  # of one colour that count as an object
_MIN_CONTRAST = 0.35  # of a pattern, as a fraction of the distance between a colour and its shade
_RADII = (4.0, 4.5, 5.0, 5.5, 6.0, 6.6, 7.1, 7.6)  # of the templates
_LARGE = 5.8  # radius from which an object is large
_KERNEL = 17  # side of a template, odd
_MARGIN = 6  # pixels from the picture's side within which no object's centre is looked for
_COLUMN_EDGES = torch.tensor([(GRID[0] + GRID[1]) / 2, (GRID[1] + GRID[2]) / 2])


class _Objects(NamedTuple):
    """One object per row; indices into the grammar's word lists, -1 where nothing was found."""

    colour: Tensor  # (rows,)
    shape: Tensor  # (rows,)
    large: Tensor  # (rows,) 0 or 1
    x: Tensor  # (rows,) centre in pixels
    y: Tensor  # (rows,)


def attribute_accuracy(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Share of each prompt's attributes that its image shows; uint8 (n, 3, 32, 32) -> float32 (n,) in 0..1."""
    return torch.tensor([sum(marks.values()) / len(marks) for marks in _marks(images, prompts)])


def all_correct(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Whether each image shows all of its prompt's attributes; uint8 (n, 3, 32, 32) -> bool (n,)."""
    return torch.tensor([all(marks.values()) for marks in _marks(images, prompts)])


def correct_attributes(images: Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
    """Which of its prompt's attributes each image shows, by the attribute's name."""
    return _marks(images, prompts)


def read_attributes(images: Tensor, prompts: Sequence[str]) -> list[dict[str, str]]:
    """The words read for each attribute of the prompt, by the attribute's name; "none" where there is no object."""
    return _read(images, [parse(prompt) for prompt in prompts])


def _marks(images: Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
    scenes = [parse(prompt) for prompt in prompts]
    readings = _read(images, scenes)
    return [
        {name: reading[name] == word for name, word in asdict(scene).items()}
        for scene, reading in zip(scenes, readings, strict=True)
    ]


def _read(images: Tensor, scenes: Sequence[Scene]) -> list[dict[str, str]]:
    if images.dtype != torch.uint8 or images.shape != (len(scenes), 3, SIDE, SIDE):
        raise ValueError(
            f"expected uint8 images ({len(scenes)}, 3, {SIDE}, {SIDE}), one per prompt, "
            f"but got {images.dtype} {tuple(images.shape)}"
        )
    if not scenes:
        return []
    pixels = images.cpu().float()
    names = _nearest_colour(pixels)
    background = _majority(names, _border_mask().expand_as(names))
    counts = _counts(names, names != background[:, None, None])  # (n, colours)
    num_pixels, order = counts.sort(dim=1, descending=True, stable=True)
    colours = torch.where(num_pixels[:, :2] >= _MIN_PIXELS, order[:, :2], -1)  # (n, 2) the two largest, or -1
    is_pair = torch.tensor([isinstance(scene, Pair) for scene in scenes])
    colours[:, 1] = torch.where(is_pair, colours[:, 1], -1)

    owner = _owners(pixels, background, colours)  # (n, SIDE, SIDE): 0 background, 1 first, 2 second object
    pattern = _read_pattern(pixels, background, owner > 0)
    first = _read_object(owner == 1, colours[:, 0])
    second = _read_object(owner == 2, colours[:, 1])
    return [
        _words(scene, COLOURS[background[row]], PATTERNS[pattern[row]], _row(first, row), _row(second, row))
        for row, scene in enumerate(scenes)
    ]


def _nearest_colour(pixels: Tensor) -> Tensor:
    """Index of the colour that a pixel is nearest to, itself or its shade; (n, 3, H, W) -> (n, H, W)."""
    anchors = torch.cat([PALETTE, SHADES])  # (2 * colours, 3)
    # argmin |p - a|^2 = argmin |a|^2 - 2 p.a
    scores = (anchors**2).sum(1)[None, :, None, None] - 2 * torch.einsum("nchw,ac->nahw", pixels, anchors)
    return scores.argmin(1) % len(COLOURS)


def _counts(names: Tensor, where: Tensor) -> Tensor:
    """How often each colour occurs where the mask holds; (n, H, W) -> (n, colours)."""
    return torch.stack([((names == colour) & where).sum((1, 2)) for colour in range(len(COLOURS))], dim=1)


def _majority(names: Tensor, where: Tensor) -> Tensor:
    return _counts(names, where).argmax(1)


def _border_mask() -> Tensor:
    mask = torch.ones(SIDE, SIDE, dtype=torch.bool)
    mask[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    return mask


def _owners(pixels: Tensor, background: Tensor, colours: Tensor) -> Tensor:
    """Which of background (0), first (1) and second object (2) a pixel's colour is nearest to; -> (n, H, W)."""
    anchors = torch.stack(
        [PALETTE[background], SHADES[background], PALETTE[colours[:, 0]], PALETTE[colours[:, 1]]], dim=1
    )  # (n, 4, 3)
    distances = (pixels[:, None] - anchors[..., None, None]).square().sum(2)  # (n, 4, H, W)
    distances[:, 2:].masked_fill_((colours < 0)[..., None, None], torch.inf)
    return torch.tensor([0, 0, 1, 2])[distances.argmin(1)]


def _read_pattern(pixels: Tensor, background: Tensor, objects: Tensor) -> Tensor:
    """The pattern whose shaded places stand out most from the rest of the background; -> (n,) index."""
    base, shade = PALETTE[background][:, :, None, None], SHADES[background][:, :, None, None]
    towards = shade - base
    shadedness = ((pixels - base) * towards).sum(1) / towards.square().sum(1)  # (n, H, W): 0 base, 1 shade
    near_object = functional.max_pool2d(objects[:, None].float(), 3, stride=1, padding=1)[:, 0]
    weight = 1 - near_object
    shadedness = shadedness.clamp(-0.5, 1.5) * weight
    inside, outside = PATTERN_MASKS, 1 - PATTERN_MASKS  # (patterns, H, W)

    def mean(mask: Tensor) -> Tensor:
        return torch.einsum("nhw,phw->np", shadedness, mask) / torch.einsum("nhw,phw->np", weight, mask).clamp(min=1)

    contrast = mean(inside) - mean(outside)  # (n, patterns)
    contrast[:, PATTERNS.index("plain")] = _MIN_CONTRAST
    return contrast.argmax(1)


def _templates() -> Tensor:
    """Every shape at every radius, centred on the middle of a kernel: (shapes * radii, 1, KERNEL, KERNEL)."""
    offsets = torch.arange(_KERNEL) - _KERNEL // 2
    x, y = offsets[None, :].float(), offsets[:, None].float()
    return torch.stack([coverage(shape, x, y, torch.tensor(radius)) for shape in SHAPES for radius in _RADII])[:, None]


_TEMPLATES = _templates()


def _read_object(mask: Tensor, colour: Tensor) -> _Objects:
    """Shape, size and centre of the template that fits each mask (n, H, W) best, by intersection over union."""
    rows = mask.float()[:, None]
    pad = _KERNEL // 2 - _MARGIN
    overlap = functional.conv2d(rows, _TEMPLATES, padding=pad)  # (n, templates, centres, centres)
    area = _TEMPLATES.sum((1, 2, 3))[None, :, None, None]
    iou = overlap / (area + rows.sum((2, 3), keepdim=True) - overlap)
    side = iou.shape[-1]
    best = iou.flatten(1).argmax(1)
    template, place = best // side**2, best % side**2
    radius = torch.tensor(_RADII)[template % len(_RADII)]
    return _Objects(
        colour=colour,
        shape=template // len(_RADII),
        large=(radius > _LARGE).long(),
        x=place % side + _MARGIN + 0.5,
        y=place // side + _MARGIN + 0.5,
    )


class _Object(NamedTuple):
    """One object in words and pixels."""

    size: str
    colour: str
    shape: str
    x: float
    y: float

    @property
    def position(self) -> str:
        column, row = torch.bucketize(torch.tensor([self.x, self.y]), _COLUMN_EDGES).tolist()
        return POSITIONS[3 * row + column]


def _row(objects: _Objects, row: int) -> _Object | None:
    colour = int(objects.colour[row])
    if colour < 0:
        return None
    return _Object(
        SIZES[int(objects.large[row])],
        COLOURS[colour],
        SHAPES[int(objects.shape[row])],
        float(objects.x[row]),
        float(objects.y[row]),
    )


def _words(
    scene: Scene, background: str, pattern: str, first: _Object | None, second: _Object | None
) -> dict[str, str]:
    """The readings under the scene's attribute names."""
    ground = {"background": background, "pattern": pattern}
    if not isinstance(scene, Pair):
        thing = (
            {"size": first.size, "colour": first.colour, "shape": first.shape, "position": first.position}
            if first
            else dict.fromkeys(("size", "colour", "shape", "position"), NOTHING)
        )
        return thing | ground
    if _num_matches(scene, second, first) > _num_matches(scene, first, second):
        first, second = second, first
    return {
        "colour": first.colour if first else NOTHING,
        "shape": first.shape if first else NOTHING,
        "relation": _relation(first, second) if first and second else NOTHING,
        "second_colour": second.colour if second else NOTHING,
        "second_shape": second.shape if second else NOTHING,
    } | ground


def _num_matches(scene: Pair, first: _Object | None, second: _Object | None) -> int:
    return (first is not None and first.colour == scene.colour) + (
        second is not None and second.colour == scene.second_colour
    )


def _relation(first: _Object, second: _Object) -> str:
    """Where the first object lies, seen from the second."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) > abs(dy):
        return RELATIONS[0] if dx < 0 else RELATIONS[1]
    return RELATIONS[2] if dy < 0 else RELATIONS[3]
