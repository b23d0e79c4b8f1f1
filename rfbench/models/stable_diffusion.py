"""Stable Diffusion 1.x, 2.x and XL: a diffusers pipeline folder or hub id as a base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from rfbench.core.conditioning import Condition
from rfbench.core.noising.process import Process
from rfbench.models import lora, noise_schedule, pipeline_folder
from rfbench.models.pipeline_folder import ENCODER, MODEL, PipelineFolder
from rfbench.models.pipeline_model import PipelineModel, Published
from rfbench.models.prompt_tokens import ClipTokens, Tokens
from rfbench.models.text_encoding import Shapes, StableDiffusionText, StableDiffusionXLText, TextEncoder, TextNetwork
from rfbench.suite.settings import Settings

DEFAULT_PATH = "CompVis/stable-diffusion-v1-4"
FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    f"unet/{MODEL}",
    "vae/config.json",
    f"vae/{MODEL}",
    "text_encoder*/config.json",  # XL has a second one
    f"text_encoder*/{ENCODER}",
    "tokenizer*/*",
    "tokenizer*/tokenizer.json | tokenizer*/vocab.json + tokenizer*/merges.txt",
)


class StableDiffusionConfig(Settings):
    """Settings of a Stable Diffusion model."""

    path: str = Field(DEFAULT_PATH, description="pipeline folder, or hub id; of the families 1.x, 2.x and XL")
    revision: str | None = Field(
        None, description="the hub's commit; None is the one known for the default path, and 'main' for others"
    )
    resolution: int | None = Field(None, ge=8, description="pixels of a side; None is what the UNet was trained at")


class StableDiffusion(PipelineModel):
    """Stable Diffusion 1.x, 2.x or XL, as its folder says; the UNet is trained.

    Text encoders and VAE, which stay frozen in fp32, cost 0.6 GB (XL: 3.4 GB).
    """

    Config: ClassVar[type[Settings]] = StableDiffusionConfig
    published: ClassVar[Published] = Published(DEFAULT_PATH, "133a221b8aa7292a167afc5127cb63fb5005638b", 4.3, "sd1")

    @classmethod
    def files(cls, config: Any) -> tuple[str, ...]:
        return FILES

    @classmethod
    def read_folder(cls, config: Any, path: Path, *, weights: bool = True) -> PipelineFolder:
        return pipeline_folder.read(path, weights=weights)

    @classmethod
    def make_process(cls, folder: PipelineFolder, config: Any) -> Process:
        return noise_schedule.read(folder.scheduler)

    @classmethod
    def tokens(cls, folder: PipelineFolder, config: Any) -> dict[str, Tokens]:
        return {part: ClipTokens(folder, part) for part in folder.encoders}

    def make_text(self, networks: list[TextNetwork]) -> TextEncoder:
        if self._folder.is_xl:
            return StableDiffusionXLText(*networks, zeros=self._folder.force_zeros_for_empty_prompt)
        return StableDiffusionText(*networks)

    def condition_shapes(self, folder: PipelineFolder, config: Any) -> Shapes:
        text = (1, folder.positions("text_encoder"), folder.denoiser["cross_attention_dim"])
        return {"text": text} | ({"pooled": (1, folder.projection("text_encoder_2"))} if folder.is_xl else {})

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        options = {}
        if self._folder.is_xl:
            options["added_cond_kwargs"] = {"text_embeds": condition["pooled"], "time_ids": self._time_ids(latents)}
        return denoiser(latents, timesteps, encoder_hidden_states=condition["text"], return_dict=False, **options)[0]

    def save_kohya(self, folder: Path, adapter: str) -> None:
        lora.save_kohya(self.denoiser, adapter, folder)

    def _time_ids(self, latents: Tensor) -> Tensor:
        """XL's size conditioning ``(m, 6)``: original size, crop's corner, target size; an image as it is."""
        pixels = latents.shape[-1] * self._folder.pixels_per_latent
        sizes = torch.tensor([pixels, pixels, 0, 0, pixels, pixels], dtype=latents.dtype, device=latents.device)
        return sizes.expand(len(latents), 6)
