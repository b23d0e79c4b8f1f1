"""Stages `unet` and `unet-flow`: the denoiser and its text encoder, saved often, for one with room to improve."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from torch.nn import functional
from transformers import CLIPTextModel

from rfbench.worlds.shapes.grammar import prompt_at
from rfbench.worlds.shapes.pretrain.clip import TEXT_WIDTH
from rfbench.worlds.shapes.pretrain.sampling import Base, Objective
from rfbench.worlds.shapes.pretrain.training import Average, Progress
from rfbench.worlds.shapes.proxy import ShapesReward

STEPS = 900
SAVE_EVERY = 100
BATCH = 128
LEARNING_RATE = 1e-3
WARMUP = 50
AVERAGE_DECAY = 0.98
EMPTY_PROMPTS = 0.1  # share of rows trained without a prompt, for guidance
SEED = 4


def build_unet() -> UNet2DConditionModel:
    """Attention to the prompt at the lower of two levels only: half the time of attention at both."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(48, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=4,
        cross_attention_dim=TEXT_WIDTH,
    )


def train_unet(objective: Objective, vae_folder: Path, clip_folder: Path, pool: Path, folder: Path) -> None:
    """Train at a constant learning rate; `step-N` holds the moving average of the weights after N steps."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    base, process = _initial_base(objective, vae_folder, clip_folder), objective.process
    averaged = Base(base.tokenizer, copy.deepcopy(base.text_encoder), base.vae, copy.deepcopy(base.unet), objective)
    trained = torch.nn.ModuleList([base.unet, base.text_encoder])
    average = Average(trained, AVERAGE_DECAY)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    examples = load_file(pool)
    progress = Progress("unet", STEPS, every=50)
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, step / WARMUP)
        rows = torch.randint(len(examples["latents"]), (BATCH,), generator=generator)
        dropped = torch.rand(BATCH, generator=generator) < EMPTY_PROMPTS
        prompts = [
            "" if drop else prompt_at(index)
            for index, drop in zip(examples["indices"][rows].tolist(), dropped.tolist(), strict=True)
        ]
        noise = torch.randn(BATCH, 4, 8, 8, generator=generator)
        timesteps = torch.stack([process.random_timestep(generator) for _ in range(BATCH)])
        noisy = process.add_noise(examples["latents"][rows], noise, timesteps)
        output = base.predict(noisy, timesteps, base.encode(prompts))
        loss = functional.mse_loss(output, process.target(examples["latents"][rows], noise, timesteps))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        average.update(trained.parameters())
        progress(step, loss=loss.item())
        if step % SAVE_EVERY == 0:
            average.copy_to(torch.nn.ModuleList([averaged.unet, averaged.text_encoder]))
            averaged.save(folder / f"step-{step}")


def _initial_base(objective: Objective, vae_folder: Path, clip_folder: Path) -> Base:
    """A new UNet on the trained VAE, with the text encoder that the contrastive stage learnt."""
    reward = ShapesReward.load(clip_folder)
    text_encoder = CLIPTextModel(reward.clip.config.text_config)
    text_encoder.load_state_dict(reward.clip.text_model.state_dict())
    vae = AutoencoderKL.from_pretrained(vae_folder).eval()
    return Base(reward.tokenizer, text_encoder, vae, build_unet(), objective)
