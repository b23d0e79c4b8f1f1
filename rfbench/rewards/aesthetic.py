"""The LAION aesthetic predictor V2 (Schuhmann, 2022): five linear layers on unit CLIP ViT-L/14 image embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.reward import Reward
from rfbench.errors import InputError
from rfbench.files import sha256
from rfbench.hub import weights as hub
from rfbench.hub.sources import Source
from rfbench.rewards import weights
from rfbench.rewards.clip import BACKEND, IMAGE_FILES, MODEL_FILES, ClipImages, check_clip, load_clip
from rfbench.rewards.linear_head import LinearHead
from rfbench.suite.settings import Settings

DEFAULT_PATH = "camenduru/improved-aesthetic-predictor"
HEAD_SHA256 = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"  # of the published file
HEAD_FILE = "sac+logos+ava1-l14-linearMSE.pth"


class AestheticConfig(Settings):
    """Settings of the aesthetic predictor."""

    path: str = Field(DEFAULT_PATH, description=f"hub id, or the file {HEAD_FILE} (or .safetensors)")
    revision: str = Field("main", description="the hub's commit; the default path's file is known by its checksum")
    clip: str = Field("openai/clip-vit-large-patch14", description="CLIP folder, or hub id")
    clip_revision: str = Field("32bd64288804d66eefd0ccbe215aa642df71cc41", description="its commit")


class Aesthetic(Reward):
    """LAION aesthetic score of the image alone, about 1 to 10."""

    Config = AestheticConfig
    unit = "aesthetic points"
    image_kind = "pixels"
    uses_prompts = False

    @classmethod
    def sources(cls, config: AestheticConfig) -> list[Source]:
        return [
            Source("path", config.path, (HEAD_FILE,), config.revision, gigabytes=0.004),
            Source("clip", config.clip, (*MODEL_FILES, *IMAGE_FILES), config.clip_revision, gigabytes=1.7),
        ]

    @classmethod
    def check(cls, config: AestheticConfig) -> None:
        head, clip = (source.find() for source in cls.sources(config))
        if head and clip:
            check_clip(clip, images=clip)
            _check_published(config, head)

    def __init__(self, config: AestheticConfig, device: torch.device) -> None:
        path, folder = (source.require("reward") for source in self.sources(config))
        _check_published(config, path)
        tensors = weights.read(path).tensors
        clip = load_clip(folder, device)
        self._head = LinearHead(clip.config.projection_dim).to(device).eval().requires_grad_(False)
        hub.load(self._head, tensors, path, f"the aesthetic head on {folder}")
        self._images = ClipImages(clip, folder)
        self.version = f"{weights.digest(path)} on CLIP {weights.digest(folder / MODEL_FILES[1])}, {BACKEND}"

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._head(self._images(images))


def _check_published(config: AestheticConfig, path: Path) -> None:
    """Of the default repository, whose commits are not pinned, the file is: by its content."""
    if config.path == DEFAULT_PATH and sha256(path) != HEAD_SHA256:
        raise InputError(
            f"{path} is not the published {HEAD_FILE}: its sha256 is {sha256(path)}, not {HEAD_SHA256}; "
            "fetch it again, or name the file that you mean with reward.path"
        )
