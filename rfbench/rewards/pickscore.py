"""PickScore (Kirstain et al., 2023, arXiv:2305.01569): a CLIP ViT-H/14 finetuned on Pick-a-Pic."""

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


class PickScoreConfig(Settings):
    """Settings of PickScore."""

    path: str = Field("yuvalkirstain/PickScore_v1", description="model folder, or hub id")
    revision: str = Field("a4e4367c6dfa7288a00c550414478f865b875800", description="the hub's commit")
    processor: str = Field(
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", description="folder or hub id of image processor and tokenizer"
    )
    processor_revision: str = Field("1c2b8495b28150b8a4922ee1c8edee224c284c0c", description="its commit")


class PickScore(Reward):
    """PickScore: cosine of image and prompt, without the logit scale of about 100, as the PRDP paper reports it."""

    Config = PickScoreConfig
    unit = "cosine"
    image_kind = "pixels"

    @classmethod
    def sources(cls, config: PickScoreConfig) -> list[Source]:
        processor_files = (*IMAGE_FILES, *TOKENIZER_FILES)
        return [
            Source("path", config.path, MODEL_FILES, config.revision, gigabytes=3.9),
            Source("processor", config.processor, processor_files, config.processor_revision, gigabytes=0.01),
        ]

    @classmethod
    def check(cls, config: PickScoreConfig) -> None:
        model, processor = (source.find() for source in cls.sources(config))
        if model and processor:
            check_clip(model, images=processor, texts=processor)

    def __init__(self, config: PickScoreConfig, device: torch.device) -> None:
        folder, processor = (source.require("reward") for source in self.sources(config))
        clip = load_clip(folder, device)
        self._images, self._texts = ClipImages(clip, processor), ClipTexts(clip, processor)
        self.version = f"v1, {weights.digest(folder / MODEL_FILES[1])}, {BACKEND}"

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return (self._images(images) * self._texts(prompts)).sum(1)
