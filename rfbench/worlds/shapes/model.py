"""The embedded world's base model: a small Stable Diffusion pipeline that ships with rfbench."""

from __future__ import annotations

import torch

from rfbench.core.model import Reading
from rfbench.core.noising.process import Process
from rfbench.hub.sources import Source
from rfbench.models.stable_diffusion import StableDiffusion, StableDiffusionConfig
from rfbench.suite.settings import Settings
from rfbench.worlds.shapes import weights
from rfbench.worlds.shapes.grammar import WORDS

CONFIG = StableDiffusionConfig(path=str(weights.PIPELINE))


class ShapesModel(StableDiffusion):
    """32x32 images in 4x8x8 latents; weights are stored in fp16, verified, and used in fp32."""

    Config = Settings

    def __init__(self, config: Settings, device: torch.device) -> None:
        weights.verify(weights.PIPELINE)
        super().__init__(CONFIG, device)

    @classmethod
    def untrained(cls, config: Settings, device: torch.device) -> ShapesModel:
        return super().untrained(CONFIG, device)

    @classmethod
    def read_process(cls, config: Settings) -> Process | None:
        return super().read_process(CONFIG)

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
