"""Stage `vae`: an AutoencoderKL that turns 32x32 pictures into 8x8 latents of 4 channels."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from rfbench.worlds.shapes.pretrain.data import draw_scenes, to_signed
from rfbench.worlds.shapes.pretrain.training import Progress, autocast, cosine_with_warmup
from rfbench.worlds.shapes.renderer import SIDE, render

STEPS = 5000
BATCH = 32
LEARNING_RATE = 1.5e-3
KL_WEIGHT = 3e-4  # per latent element, against errors per pixel and channel in -1..1
SEED = 1


def build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(24, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=SIDE,
    )


def train_vae(folder: Path) -> None:
    """Train on one core and save with the scaling factor that gives latents unit variance."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    vae = build_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = cosine_with_warmup(optimizer, STEPS)
    progress = Progress("vae", STEPS, every=100)
    for step in range(1, STEPS + 1):
        pictures = to_signed(render(draw_scenes(BATCH, generator), generator))
        with autocast():
            posterior = vae.encode(pictures).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        error = decoded.float() - pictures
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = error.abs().mean() + error.square().mean() + KL_WEIGHT * kl
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress(step, mse=error.square().mean().item(), kl=kl.item())
    vae.eval().register_to_config(scaling_factor=_scaling_factor(vae, generator))
    vae.save_pretrained(folder)


@torch.no_grad()
def _scaling_factor(vae: AutoencoderKL, generator: torch.Generator) -> float:
    pictures = to_signed(render(draw_scenes(1024, generator), generator))
    return float(1 / vae.encode(pictures).latent_dist.mean.std())
