"""The renderer: the same draw gives the same picture, and the border always shows the background."""

import torch

from rfbench.worlds.shapes.grammar import NUM_PROMPTS, PATTERNS, scene_at
from rfbench.worlds.shapes.renderer import PALETTE, PATTERN_MASKS, SHADES, render

SCENES = [scene_at(index) for index in range(0, NUM_PROMPTS, 1009)]


def _render(seed: int) -> torch.Tensor:
    return render(SCENES, torch.Generator().manual_seed(seed))


def test_pictures_are_8_bit_and_depend_on_the_seed_alone() -> None:
    pictures = _render(0)
    assert pictures.dtype == torch.uint8
    assert pictures.shape == (len(SCENES), 3, 32, 32)
    assert torch.equal(pictures, _render(0))
    assert not torch.equal(pictures, _render(1))


def test_every_picture_of_other_scenes_differs() -> None:
    assert len({picture.numpy().tobytes() for picture in _render(0)}) == len(SCENES)


def test_the_border_is_pure_background() -> None:
    colours = torch.cat([PALETTE, SHADES]).to(torch.uint8)
    pictures = _render(2)
    border = torch.cat([pictures[:, :, [0, -1]].flatten(2), pictures[..., [0, -1]].flatten(2)], dim=2)  # (n, 3, pixels)
    is_colour = (border[..., None] == colours.T[None, :, None]).all(1)  # (n, pixels, anchors)
    assert is_colour.any(-1).all()
    per_picture = is_colour.any(1)  # (n, anchors): which colours a border shows
    assert ((per_picture[:, : len(PALETTE)] | per_picture[:, len(PALETTE) :]).sum(1) == 1).all()


def test_patterns_are_distinct_and_only_plain_is_unshaded() -> None:
    shaded = dict(zip(PATTERNS, PATTERN_MASKS.mean((1, 2)).tolist(), strict=True))
    assert shaded == {"plain": 0, "striped": 0.5, "dotted": 0.25, "checkered": 0.5}
