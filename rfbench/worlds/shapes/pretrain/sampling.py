"""The pipeline's parts in pretraining, the two processes that a UNet is trained on, and guided samples in 10 steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from rfbench.core.noising.flow import Flow
from rfbench.core.noising.process import Process
from rfbench.models import noise_schedule
from rfbench.suite.suite import Sampler
from rfbench.worlds.shapes.model import NETWORK_TIME
from rfbench.worlds.shapes.pretrain.data import to_pixels
from rfbench.worlds.shapes.weights import PIPELINE

NUM_STEPS = 10
GUIDANCE = 3.0
_CHUNK = 128  # images per UNet call; guidance doubles the rows


@dataclass(frozen=True)
class Objective:
    """What a UNet is trained to say of noise and data.

    Attributes:
        process: their mixture and the UNet's output.
        sampler: how checkpoints are drawn from.
        scheduler: what plain diffusers draws with, in the checkpoint's folder.
        network_time: the UNet's timestep, for a timestep of the process that is 1.
    """

    process: Process
    sampler: Sampler
    scheduler: DDIMScheduler | UniPCMultistepScheduler
    network_time: float = 1.0


_DDIM = DDIMScheduler(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
)
EPSILON = Objective(noise_schedule.read(dict(_DDIM.config)), Sampler(kind="ddim", num_steps=NUM_STEPS), _DDIM)
FLOW = Objective(
    Flow(),
    Sampler(kind="flow-sde", num_steps=NUM_STEPS),
    UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, steps_offset=1),
    NETWORK_TIME,
)


@dataclass
class Base:
    """The parts of a text-to-image model."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    objective: Objective

    @classmethod
    def load(cls, folder: Path) -> Base:
        """The parts of a StableDiffusionPipeline folder, in float32 and evaluation mode.

        One without a VAE is `flow` as it ships: its VAE is that of `pipeline` beside it.
        """
        home = folder if (folder / "vae").is_dir() else folder.parent / PIPELINE.name
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            vae=AutoencoderKL.from_pretrained(home / "vae"),
            safety_checker=None,
            local_files_only=True,
            dtype=torch.float32,
        )
        networks = (pipeline.text_encoder.eval(), pipeline.vae.eval(), pipeline.unet.eval())
        is_flow = pipeline.scheduler.config.prediction_type == "flow_prediction"
        return cls(pipeline.tokenizer, *networks, FLOW if is_flow else EPSILON)

    def save(self, folder: Path) -> None:
        """Write a StableDiffusionPipeline folder."""
        pipeline = StableDiffusionPipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            vae=self.vae,
            unet=self.unet,
            scheduler=self.objective.scheduler,
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

    def predict(self, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """The UNet's output for latents (n, 4, 8, 8) at the process's timesteps (n,) and token states."""
        output: Tensor = self.unet(latents, self.objective.network_time * timesteps, states).sample
        return output

    def _sample(self, prompts: Sequence[str], generator: torch.Generator) -> Tensor:
        chain = self.objective.process.chain(self.objective.sampler)
        states = torch.cat([self.encode([""]).expand(len(prompts), -1, -1), self.encode(prompts)])
        side, channels = self.unet.config.sample_size, self.unet.config.in_channels
        latents = torch.randn(len(prompts), channels, side, side, generator=generator)
        for step in torch.arange(chain.num_steps):
            timesteps = chain.timesteps[step].expand(2 * len(prompts))
            free, guided = self.predict(torch.cat([latents, latents]), timesteps, states).chunk(2)
            mean = chain.mean(latents, free + GUIDANCE * (guided - free), step.expand(len(prompts)))
            latents = mean + chain.sigma[step] * torch.randn(latents.shape, generator=generator)
        return to_pixels(self.vae.decode(latents / self.vae.config.scaling_factor).sample)
