"""Stages `export`, `export-flow` and `export-reward`: the chosen bases and the reward in float16 with checksums."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from rfbench.worlds.shapes.proxy import ShapesReward
from rfbench.worlds.shapes.weights import write_checksums


def export_base(checkpoint: Path, folder: Path, *, with_vae: bool) -> None:
    """Write a StableDiffusionPipeline folder with its SHA256SUMS."""
    base = StableDiffusionPipeline.from_pretrained(
        checkpoint, safety_checker=None, local_files_only=True, dtype=torch.float16
    )
    for part in (base, base.unet, base.vae):
        part.register_to_config(_name_or_path="")  # diffusers would write the folder on this machine
    base.save_pretrained(folder)
    if not with_vae:
        shutil.rmtree(folder / "vae")
    _load_in_float32(folder / "text_encoder" / "config.json")
    write_checksums(folder)


def export_reward(checkpoint: Path, folder: Path) -> None:
    """Write a CLIPModel folder with its tokenizer, preprocessing and SHA256SUMS."""
    reward = ShapesReward.load(checkpoint)
    reward.clip.half()
    reward.save(folder)
    _load_in_float32(folder / "config.json")
    write_checksums(folder)


def _load_in_float32(config: Path) -> None:
    """Have transformers upcast on loading, as diffusers does: otherwise a plain pipeline would mix precisions."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(settings | {"dtype": "float32"}, indent=2) + "\n", encoding="utf-8")
