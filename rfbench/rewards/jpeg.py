"""JPEG compressibility and incompressibility (Black et al., 2024): rewards that need no model."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from PIL import Image, features
from pydantic import Field
from torch import Tensor

from rfbench.core.reward import Reward
from rfbench.suite.settings import Settings


class JpegConfig(Settings):
    """Settings of the JPEG rewards."""

    quality: int = Field(95, ge=1, le=100, description="JPEG quality, 95 as published")


class JpegIncompressibility(Reward):
    """Kilobytes (1000 bytes) of the image as a JPEG file with 4:2:0 chroma."""

    Config = JpegConfig
    unit = "kB"
    image_kind = "pixels"
    uses_prompts = False
    sign = 1

    def __init__(self, config: JpegConfig, device: torch.device) -> None:
        self._quality = config.quality
        self.version = f"libjpeg-turbo {features.version('libjpeg_turbo')}"

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.tensor([self.sign * self._size(pixels) / 1000 for pixels in images.cpu()])

    def _size(self, pixels: Tensor) -> int:
        buffer = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(
            buffer, "JPEG", quality=self._quality, subsampling="4:2:0"
        )
        return buffer.tell()


class JpegCompressibility(JpegIncompressibility):
    """Minus the kilobytes (1000 bytes) of the image as a JPEG file."""

    unit = "-kB"
    sign = -1
