"""Stage `export`: the chosen base and the reward in float16 with checksums, as they ship."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from rfbench.worlds.shapes.proxy import ShapesReward
from rfbench.worlds.shapes.weights import write_checksums


def export(checkpoint: Path, reward_folder: Path, weights: Path) -> None:
    """Write `pipeline` and `reward` below `weights`, each with its SHA256SUMS."""
    base = StableDiffusionPipeline.from_pretrained(
        checkpoint, safety_checker=None, local_files_only=True, dtype=torch.float16
    )
    for part in (base, base.unet, base.vae):
        part.register_to_config(_name_or_path="")  # diffusers would write the folder on this machine
    base.save_pretrained(weights / "pipeline")
    reward = ShapesReward.load(reward_folder)
    reward.clip.half()
    reward.save(weights / "reward")
    for config in (weights / "pipeline" / "text_encoder" / "config.json", weights / "reward" / "config.json"):
        _load_in_float32(config)
    for name in ("pipeline", "reward"):
        write_checksums(weights / name)


def _load_in_float32(config: Path) -> None:
    """Have transformers upcast on loading, as diffusers does: otherwise a plain pipeline would mix precisions."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(settings | {"dtype": "float32"}, indent=2) + "\n", encoding="utf-8")
