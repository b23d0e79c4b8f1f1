"""CLIPScore as Hessel et al. (2021, arXiv:2104.08718) define it: 2.5 max(cos(image, "A photo depicts ..."), 0)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.reward import Reward
from rfbench.hub.sources import Source
from rfbench.rewards import weights
from rfbench.rewards.clip import (
    BACKEND,
    IMAGE_FILES,
    MODEL_FILES,
    TOKENIZER_FILES,
    ClipImages,
    ClipTexts,
    check_clip,
    load_clip,
)
from rfbench.suite.settings import Settings

SCALE = 2.5


class ClipScoreConfig(Settings):
    """Settings of CLIPScore."""

    path: str = Field("openai/clip-vit-large-patch14", description="CLIP folder, or hub id")
    revision: str = Field("32bd64288804d66eefd0ccbe215aa642df71cc41", description="the hub's commit")
    prefix: str = Field("A photo depicts ", description="put before each prompt")


class ClipScore(Reward):
    """CLIPScore of Hessel et al.: 2.5 max(cosine, 0). Not torchmetrics' 100 max(cosine, 0)."""

    Config = ClipScoreConfig
    unit = "2.5 x cosine"
    image_kind = "pixels"

    @classmethod
    def sources(cls, config: ClipScoreConfig) -> list[Source]:
        files = (*MODEL_FILES, *IMAGE_FILES, *TOKENIZER_FILES)
        return [Source("path", config.path, files, config.revision, gigabytes=1.7)]

    @classmethod
    def check(cls, config: ClipScoreConfig) -> None:
        folder = cls.sources(config)[0].find()
        if folder:
            check_clip(folder, images=folder, texts=folder)

    def __init__(self, config: ClipScoreConfig, device: torch.device) -> None:
        folder = self.sources(config)[0].require("reward")
        clip = load_clip(folder, device)
        self._images, self._texts = ClipImages(clip, folder), ClipTexts(clip, folder)
        self._prefix = config.prefix
        self.version = f"{weights.digest(folder / MODEL_FILES[1])}, {BACKEND}"

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        texts = self._texts([self._prefix + prompt for prompt in prompts])
        return SCALE * (self._images(images) * texts).sum(1).clamp(min=0)
