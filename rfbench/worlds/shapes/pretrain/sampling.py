"""Samples for pretraining: the pipeline's parts, and guided DDIM with eta 1 in 10 steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from rfbench.worlds.shapes.pretrain.data import to_pixels

NUM_STEPS = 10
GUIDANCE = 3.0
_CHUNK = 128  # images per UNet call; guidance doubles the rows


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@dataclass
class Base:
    """The parts of a text-to-image model."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel

    @classmethod
    def load(cls, folder: Path) -> Base:
        """The parts of a StableDiffusionPipeline folder, in float32 and evaluation mode."""
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, safety_checker=None, local_files_only=True, dtype=torch.float32
        )
        return cls(pipeline.tokenizer, pipeline.text_encoder.eval(), pipeline.vae.eval(), pipeline.unet.eval())

    def save(self, folder: Path) -> None:
        """Write a StableDiffusionPipeline folder."""
        pipeline = StableDiffusionPipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            vae=self.vae,
            unet=self.unet,
            scheduler=build_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(folder)

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Token states (n, tokens, width), padded to the tokenizer's length as the pipeline does."""
        tokens = self.tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
        states: Tensor = self.text_encoder(tokens.input_ids).last_hidden_state
        return states

    @torch.no_grad()
    def sample(self, prompts: Sequence[str], generator: torch.Generator) -> Tensor:
        """One picture per prompt, uint8 (n, 3, 32, 32)."""
        chunks = [self._sample(prompts[row : row + _CHUNK], generator) for row in range(0, len(prompts), _CHUNK)]
        return torch.cat(chunks)

    def _sample(self, prompts: Sequence[str], generator: torch.Generator) -> Tensor:
        scheduler = build_scheduler()
        scheduler.set_timesteps(NUM_STEPS)
        states = torch.cat([self.encode([""]).expand(len(prompts), -1, -1), self.encode(prompts)])
        side, channels = self.unet.config.sample_size, self.unet.config.in_channels
        latents = torch.randn(len(prompts), channels, side, side, generator=generator)
        for timestep in scheduler.timesteps:
            free, guided = self.unet(torch.cat([latents, latents]), timestep, states).sample.chunk(2)
            noise = free + GUIDANCE * (guided - free)
            latents = scheduler.step(noise, timestep, latents, eta=1.0, generator=generator).prev_sample
        return to_pixels(self.vae.decode(latents / self.vae.config.scaling_factor).sample)
