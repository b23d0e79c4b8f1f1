"""Stable Diffusion 1.x and 2.x: a diffusers pipeline folder or hub id as a base model."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from rfbench.condition import Condition
from rfbench.models.base import Model, to_uint8
from rfbench.schedule import NoiseSchedule
from rfbench.suite import Settings


class StableDiffusionConfig(Settings):
    """Settings of a Stable Diffusion model."""

    path: str = Field("CompVis/stable-diffusion-v1-4", description="pipeline folder, or hub id")
    revision: str | None = Field(None, description="the hub's commit; None takes the newest")


class StableDiffusion(Model):
    """The UNet is the denoiser; text encoder and VAE stay frozen."""

    Config: ClassVar[type[Settings]] = StableDiffusionConfig

    def __init__(self, config: StableDiffusionConfig, device: torch.device) -> None:
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        def load(part: Any, subfolder: str, **options: Any) -> Any:
            return part.from_pretrained(config.path, subfolder=subfolder, revision=config.revision, **options)

        weights = {"torch_dtype": torch.float32, "use_safetensors": True}
        unet: Any = load(UNet2DConditionModel, "unet", **weights).to(device)
        self._vae = load(AutoencoderKL, "vae", **weights).to(device).eval().requires_grad_(False)
        text_encoder = load(CLIPTextModel, "text_encoder", dtype=torch.float32, use_safetensors=True)
        self._text_encoder = text_encoder.to(device).eval().requires_grad_(False)
        self._tokenizer = load(CLIPTokenizer, "tokenizer")
        scheduler = load(DDIMScheduler, "scheduler")
        self.denoiser = unet
        self.latent_shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        self.noise_schedule = NoiseSchedule(
            scheduler.alphas_cumprod,
            scheduler.config.prediction_type,
            scheduler.config.steps_offset,
            float(scheduler.final_alpha_cumprod),
        )
        self._device = device

    def encode(self, prompt: str) -> Condition:
        tokens = self._tokenizer(
            prompt,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return {"text": self._text_encoder(tokens.input_ids.to(self._device)).last_hidden_state}

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        return denoiser(latents, timesteps, encoder_hidden_states=condition["text"], return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        return to_uint8(self._vae.decode(latents / self._vae.config.scaling_factor, return_dict=False)[0])
