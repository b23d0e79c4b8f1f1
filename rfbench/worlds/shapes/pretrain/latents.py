"""Stage `latents`: a pool of encoded renders with their prompts, so that the UNet's training never runs the VAE."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from rfbench.worlds.shapes.grammar import index_of
from rfbench.worlds.shapes.pretrain.data import draw_scenes, to_signed
from rfbench.worlds.shapes.renderer import render

POOL = 40_000
SEED = 3
_CHUNK = 250


@torch.no_grad()
def cache_latents(vae_folder: Path, file: Path) -> None:
    """Write `latents` (POOL, 4, 8, 8) in unit variance and the prompts' `indices` (POOL,) into one file."""
    generator = torch.Generator().manual_seed(SEED)
    vae = AutoencoderKL.from_pretrained(vae_folder).eval()
    scenes = draw_scenes(POOL, generator)
    latents = []
    for start in range(0, POOL, _CHUNK):
        pictures = to_signed(render(scenes[start : start + _CHUNK], generator))
        latents.append(vae.encode(pictures).latent_dist.mean * vae.config.scaling_factor)
    indices = torch.tensor([index_of(scene) for scene in scenes])
    save_file({"latents": torch.cat(latents).contiguous(), "indices": indices}, file)
