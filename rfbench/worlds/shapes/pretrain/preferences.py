"""Stage `preferences`: groups of samples for one prompt with the gold scores that stand for the annotators' taste."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from rfbench.worlds.shapes import gold
from rfbench.worlds.shapes.grammar import index_of
from rfbench.worlds.shapes.pretrain.choose import neighbours
from rfbench.worlds.shapes.pretrain.data import draw_scenes
from rfbench.worlds.shapes.pretrain.sampling import Base
from rfbench.worlds.shapes.renderer import render

NUM_PROMPTS = {"chosen": 4000, "half": 1000, "twice": 1000}  # sampled from each checkpoint
SAMPLES = 4  # per prompt; the group's last picture is a render
SEED = 6


def collect_preferences(checkpoints: Path, chosen: str, file: Path) -> None:
    """Write `images` (prompts, SAMPLES + 1, 3, 32, 32), their `gold` scores and the prompts' `indices`."""
    generator = torch.Generator().manual_seed(SEED)
    half, twice = neighbours(checkpoints, chosen)
    images, scores, indices = [], [], []
    for role, name in (("chosen", chosen), ("half", half), ("twice", twice)):
        scenes = draw_scenes(NUM_PROMPTS[role], generator)
        repeated = [scene.prompt for scene in scenes for _ in range(SAMPLES)]
        samples = Base.load(checkpoints / name).sample(repeated, generator).unflatten(0, (-1, SAMPLES))
        group = torch.cat([samples, render(scenes, generator)[:, None]], dim=1)
        prompts = [scene.prompt for scene in scenes for _ in range(SAMPLES + 1)]
        images.append(group)
        scores.append(gold.attribute_accuracy(group.flatten(0, 1), prompts).unflatten(0, (-1, SAMPLES + 1)))
        indices += [index_of(scene) for scene in scenes]
        print(f"preferences {role} {name}: gold of samples {scores[-1][:, :-1].mean():.3f}", flush=True)
    save_file({"images": torch.cat(images), "gold": torch.cat(scores), "indices": torch.tensor(indices)}, file)
