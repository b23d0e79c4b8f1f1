"""Human Preference Score v2 (Wu et al., 2023, arXiv:2306.09341): a finetuned CLIP ViT-H/14 on open_clip.

The arithmetic is that of the package hpsv2 1.2.0: the picture is scaled so that its longest side fills the network's
input, padded with black to a square and normalised; the score is the cosine, without a logit scale.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from rfbench.core.reward import Reward
from rfbench.errors import InputError, did_you_mean
from rfbench.hub import weights as hub
from rfbench.hub.sources import Source
from rfbench.rewards import weights
from rfbench.rewards.clip import per_distinct
from rfbench.suite.settings import Settings

FILES = {"v2.0": "HPS_v2_compressed.pt", "v2.1": "HPS_v2.1_compressed.pt"}
V21_DIGEST = "sha256 c57a38fb4a2f"  # of the published HPS_v2.1_compressed.pt
MAX_TOKENS = 77
RESIZED_AT_ONCE = 4  # images; more in floating point outgrow a CPU's cache, and only cost memory on a GPU


class HPSv2Config(Settings):
    """Settings of HPSv2."""

    path: str = Field("xswu/HPSv2", description="hub id, or a checkpoint file (.pt or .safetensors)")
    revision: str = Field("697403c78157020a1ae59d23f111aa58ced35b0a", description="the hub's commit")
    version: Literal["v2.0", "v2.1"] = Field("v2.0", description="their scores cannot be compared with each other")
    legacy_resize: bool = Field(
        False, description="resize without antialiasing, as the package did before torchvision 0.17"
    )
    architecture: str = Field("ViT-H-14", description="open_clip's name of the network, or a model config (.json)")


class HPSv2(Reward):
    """Human Preference Score v2: cosine of image and prompt."""

    Config = HPSv2Config
    unit = "cosine"
    image_kind = "pixels"

    @classmethod
    def sources(cls, config: HPSv2Config) -> list[Source]:
        return [
            Source("path", config.path, (FILES[config.version],), config.revision, gigabytes=1.97, memory_gigabytes=3.9)
        ]

    @classmethod
    def check(cls, config: HPSv2Config) -> None:
        open_clip = import_open_clip()
        path = cls.sources(config)[0].find()
        if path is None:
            return
        name, found = _register(open_clip, config.architecture), weights.outline(path)
        _check_version(config.version, path, found.name, digest="")
        meta = torch.device("meta")
        with meta:
            expected = hub.shapes_of(_make(open_clip, name, device=meta).state_dict())
        hub.require_equal(expected, hub.shapes_of(found.tensors), path, f"open_clip's {name}")

    def __init__(self, config: HPSv2Config, device: torch.device) -> None:
        open_clip = import_open_clip()
        path = self.sources(config)[0].require("reward")
        name = _register(open_clip, config.architecture)
        loaded = weights.read(path)
        digest = weights.digest(path)
        _check_version(config.version, path, loaded.name, digest)
        with device:
            model = _make(open_clip, name, device=device)
        hub.load(model, loaded.tensors, path, f"open_clip's {name}")
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = open_clip.get_tokenizer(name, context_length=MAX_TOKENS)
        self._antialias = not config.legacy_resize
        mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
        self._mean = torch.tensor(mean, device=device)[:, None, None]
        self._std = torch.tensor(std, device=device)[:, None, None]
        self._device = device
        self.version = f"{config.version}, {digest}{', legacy resize' if config.legacy_resize else ''}"

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        side = self._model.visual.image_size[0]
        pixels = torch.cat(
            [
                letterbox(part.to(self._device).float() / 255, side, self._antialias)
                for part in images.split(RESIZED_AT_ONCE)
            ]
        )
        image_features = self._model.encode_image((pixels - self._mean) / self._std, normalize=True)
        return (image_features * per_distinct(prompts, self._encode)).sum(1)

    def _encode(self, prompts: list[str]) -> Tensor:
        return self._model.encode_text(self._tokenizer(prompts).to(self._device), normalize=True)


def _make(open_clip: Any, name: str, **options: Any) -> Any:
    """The network, not yet loaded."""
    logging.disable(logging.WARNING)  # open_clip's, that the weights are random: they are loaded in a moment
    try:
        return open_clip.create_model(name, **options)
    finally:
        logging.disable(logging.NOTSET)


def letterbox(pixels: Tensor, side: int, antialias: bool) -> Tensor:
    """Bicubic, not clamped: the longest side of ``(n, 3, H, W)`` becomes ``side``; black bars fill the square."""
    height, width = pixels.shape[2:]
    scale = side / max(height, width)
    if scale != 1:
        height, width = round(height * scale), round(width * scale)
        pixels = functional.interpolate(pixels, (height, width), mode="bicubic", antialias=antialias)
    down, right = side - height, side - width
    return functional.pad(pixels, (right // 2, right - right // 2, down // 2, down - down // 2))


def import_open_clip() -> Any:
    """open_clip, or an ``InputError`` that says what to install: it needs a torchvision that fits torch."""
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"the reward 'hpsv2' needs open_clip_torch and a torchvision that fits torch {torch.__version__}: "
            f"`pip install 'rfbench[hpsv2]'`. Importing open_clip failed with {type(error).__name__}: {error}"
        ) from error
    return open_clip


def _register(open_clip: Any, architecture: str) -> str:
    """open_clip's name of the network; a config file becomes known under its own name."""
    if architecture.endswith(".json"):
        file = Path(architecture).expanduser()
        if not file.is_file():
            raise InputError(f"reward.architecture is {architecture!r}, but there is no such file")
        open_clip.add_model_config(str(file))
        return file.stem
    known = open_clip.list_models()
    if architecture not in known:
        raise InputError(f"open_clip knows no network {architecture!r}{did_you_mean(architecture, known)}")
    return architecture


def _check_version(version: str, path: Path, name: str | None, digest: str) -> None:
    """What the file's name, the name inside and its checksum say of the version must not contradict ``version``."""
    signs = {f"its name is {path.name}": _said(path.name), f"its 'name' is {name!r}": _said(name or "")}
    signs["its checksum is that of HPS_v2.1_compressed.pt"] = "v2.1" if digest == V21_DIGEST else None
    for sign, said in signs.items():
        if said is not None and said != version:
            raise InputError(
                f"reward.version is {version!r}, but {path} is HPS{said}: {sign}. The two score differently; "
                f"use the file of {version}, or --set reward.version={said}"
            )


def _said(name: str) -> str | None:
    """The version that a name speaks of: HPS_v2.1_compressed.pt is v2.1, HPS_v2_compressed.pt is v2.0."""
    if re.search(r"v2[._]?1(?!\d)", name, re.IGNORECASE):
        return "v2.1"
    return "v2.0" if re.search(r"HPS_?v2(\.0)?(_|\.pt|\.safetensors|$)", name, re.IGNORECASE) else None
