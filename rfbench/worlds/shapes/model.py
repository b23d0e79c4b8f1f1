"""The embedded world's base models: small Stable Diffusion pipelines that ship with rfbench."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rfbench.core.conditioning import Condition
from rfbench.core.model import Reading
from rfbench.core.noising.diffusion import Diffusion
from rfbench.core.noising.flow import AsFlow, Flow
from rfbench.core.noising.process import Process
from rfbench.hub.sources import Source
from rfbench.hub.weights import TensorFiles, load
from rfbench.models import noise_schedule, pipeline_folder
from rfbench.models.stable_diffusion import StableDiffusion, StableDiffusionConfig
from rfbench.suite.settings import Settings
from rfbench.worlds.shapes import weights
from rfbench.worlds.shapes.grammar import WORDS

CONFIG = StableDiffusionConfig(path=str(weights.PIPELINE))
NETWORK_TIME = 1000.0  # what the flow's UNet is told where s is 1, as diffusers' schedulers tell it


class ShapesConfig(Settings):
    """Settings of the embedded world's diffusion."""

    process: Literal["converted"] | None = Field(
        None, description="null: a diffusion, whose UNet predicts noise; converted: that diffusion as a flow"
    )


class ShapesModel(StableDiffusion):
    """32x32 images in 4x8x8 latents; weights are stored in fp16, verified, and used in fp32."""

    Config: ClassVar[type[Settings]] = ShapesConfig

    def __init__(self, config: Settings, device: torch.device) -> None:
        weights.verify(weights.PIPELINE)
        super().__init__(CONFIG, device)
        self.process = self.read_process(config)

    @classmethod
    def untrained(cls, config: Settings, device: torch.device) -> ShapesModel:
        self = super().untrained(CONFIG, device)
        self.process = cls.read_process(config)
        return self

    @classmethod
    def read_process(cls, config: Any) -> Process:
        diffusion = _diffusion(weights.PIPELINE)
        return AsFlow(diffusion) if config.process == "converted" else diffusion

    @classmethod
    def reading(cls, config: Settings) -> Reading:
        return super().reading(CONFIG)

    def unknown_words(self, prompt: str) -> list[str]:
        """Those that no sentence of the grammar has."""
        return [word for word in prompt.lower().split() if word not in WORDS]

    @classmethod
    def sources(cls, config: Settings) -> list[Source]:
        """None to fetch: its files ship with rfbench."""
        return []


@cache  # every plan of a sweep asks for it
def _diffusion(folder: Path) -> Diffusion:
    return noise_schedule.read(pipeline_folder.read(folder, weights=False).scheduler)


class ShapesFlow(ShapesModel):
    """The same networks, of which UNet and text encoder were trained as a rectified flow; the VAE is the first's."""

    Config: ClassVar[type[Settings]] = Settings

    def __init__(self, config: Settings, device: torch.device) -> None:
        weights.verify(weights.FLOW)
        super().__init__(config, device)
        unet = TensorFiles(weights.FLOW / "unet", pipeline_folder.MODEL)
        load(self.denoiser, dict(unet), unet.path, "the embedded world's UNet")
        self._folder = replace(self._folder, path=weights.FLOW)

    @classmethod
    def read_process(cls, config: Any) -> Process:
        return Flow()

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        return super().predict(denoiser, latents, NETWORK_TIME * timesteps, condition)
