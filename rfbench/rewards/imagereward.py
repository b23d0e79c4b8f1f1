"""ImageReward v1.0 (Xu et al., 2023, arXiv:2304.05977): BLIP's text encoder looks at the image, a linear head scores.

The package image-reward does not import beside transformers 5. Its network is put together here from transformers'
BLIP, and ``RENAMED`` says what transformers calls the published tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from rfbench.core.reward import Reward
from rfbench.errors import InputError
from rfbench.hub import tokenizers
from rfbench.hub import weights as hub
from rfbench.hub.sources import Source
from rfbench.rewards import weights
from rfbench.rewards.clip import pil_images
from rfbench.rewards.linear_head import LinearHead
from rfbench.suite.settings import Settings

FILES = ("ImageReward.pt", "med_config.json")
MAX_TOKENS = 35
ADDED_TOKENS = ("[DEC]", ["[ENC]"])  # BLIP's, which begin a sentence that is written, or read
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the raw scores; published scores have mean 0 and std 1
IMAGE_MEAN, IMAGE_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HEAD_WIDTH = 64  # of an attention head, in every published BLIP
RENAMED = (
    (r"^blip\.text_encoder\.", "text."),
    (r"^blip\.visual_encoder\.", "vision."),
    (r"^vision\.cls_token", "vision.embeddings.class_embedding"),
    (r"^vision\.pos_embed", "vision.embeddings.position_embedding"),
    (r"^vision\.patch_embed\.proj", "vision.embeddings.patch_embedding"),
    (r"^vision\.blocks\.", "vision.encoder.layers."),
    (r"^(vision\..*)\.norm([12])\.", r"\1.layer_norm\2."),
    (r"^(vision\..*)\.attn\.qkv\.", r"\1.self_attn.qkv."),
    (r"^(vision\..*)\.attn\.proj\.", r"\1.self_attn.projection."),
    (r"^vision\.norm\.", "vision.post_layernorm."),
)
UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")


class ImageRewardConfig(Settings):
    """Settings of ImageReward."""

    path: str = Field("zai-org/ImageReward", description=f"hub id, or a folder with {FILES[0]} and {FILES[1]}")
    revision: str = Field("5736be03b2652728fb87788c9797b0570450ab72", description="the hub's commit")
    tokenizer: str = Field("google-bert/bert-base-uncased", description="tokenizer folder, or hub id")
    tokenizer_revision: str = Field("86b5e0934494bd15c9632b12f734a8a67f723594", description="its commit")


class ImageReward(Reward):
    """ImageReward v1.0: standard deviations above the mean of its authors' test set."""

    Config = ImageRewardConfig
    unit = "standard deviations"
    image_kind = "pixels"

    @classmethod
    def sources(cls, config: ImageRewardConfig) -> list[Source]:
        tokenizer_files = ("tokenizer.json", "tokenizer_config.json")
        return [
            Source("path", config.path, FILES, config.revision, gigabytes=1.8),
            Source("tokenizer", config.tokenizer, tokenizer_files, config.tokenizer_revision, gigabytes=0.001),
        ]

    @classmethod
    def check(cls, config: ImageRewardConfig) -> None:
        folder, tokenizer = (source.find() for source in cls.sources(config))
        if folder and tokenizer:
            path = folder / FILES[0]
            tensors = _renamed(weights.outline(path).tensors)
            network = hub.outline(partial(_network, tensors, folder))
            expected = hub.shapes_of(network.state_dict())
            hub.require_equal(expected, hub.shapes_of(tensors), path, f"ImageReward with {FILES[1]}")
            _tokenizer(network, tokenizer)

    def __init__(self, config: ImageRewardConfig, device: torch.device) -> None:
        folder, tokenizer = (source.require("reward") for source in self.sources(config))
        path = folder / FILES[0]
        tensors = _renamed(weights.read(path).tensors)
        self._network = _network(tensors, folder)
        hub.load(self._network, tensors, path, f"ImageReward with {FILES[1]}")
        self._network.to(device).eval().requires_grad_(False)
        self._tokenizer = _tokenizer(self._network, tokenizer)
        self._tokenizer.add_special_tokens(
            dict(zip(("bos_token", "additional_special_tokens"), ADDED_TOKENS, strict=True))
        )
        self._device = device
        self.version = f"v1.0, {weights.digest(path)}, PIL resize"

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        tokens = self._tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self._device)
        pixels = preprocess(pil_images(images), self._network.side).to(self._device)
        return (self._network(pixels, tokens.input_ids, tokens.attention_mask) - MEAN) / STD


class _Network(nn.Module):
    """Raw scores ``(n,)`` of pixels ``(n, 3, side, side)`` and tokens ``(n, tokens)``."""

    def __init__(self, vision: nn.Module, text: nn.Module, features: int, side: int) -> None:
        super().__init__()
        self.vision, self.text, self.mlp = vision, text, LinearHead(features)
        self.side = side

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        image = self.vision(pixels).last_hidden_state
        text = self.text(tokens, attention_mask=mask, encoder_hidden_states=image, is_decoder=False)
        return self.mlp(text.last_hidden_state[:, 0])


def preprocess(pictures: list[Image.Image], side: int) -> Tensor:
    """Bicubic to ``side`` on the shortest edge, cut to the centre, normalised: ``(n, 3, side, side)``."""
    squares = []
    for picture in pictures:
        scale = side / min(picture.size)
        width, height = (side if edge == min(picture.size) else int(scale * edge) for edge in picture.size)
        left, top = round((width - side) / 2), round((height - side) / 2)
        resized = picture.resize((width, height), Image.Resampling.BICUBIC)
        squares.append(np.asarray(resized.crop((left, top, left + side, top + side))))
    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(IMAGE_MEAN)[:, None, None]) / torch.tensor(IMAGE_STD)[:, None, None]


def _network(tensors: dict[str, Tensor], folder: Path) -> _Network:
    """The network whose sizes the tensors (vision) and med_config.json (text) give, not yet loaded."""
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    try:
        hidden, _, patch, _ = tensors["vision.embeddings.patch_embedding.weight"].shape
        places = tensors["vision.embeddings.position_embedding"].shape[1] - 1
        intermediate = len(tensors["vision.encoder.layers.0.mlp.fc1.weight"])
        side = patch * math.isqrt(places)
        text = json.loads((folder / FILES[1]).read_text(encoding="utf-8"))
    except (KeyError, ValueError) as error:
        raise InputError(f"{folder} holds no ImageReward: {FILES[0]} or {FILES[1]} has no {error}") from None
    vision_config = BlipVisionConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=len({key.split(".")[3] for key in tensors if key.startswith("vision.encoder.layers.")}),
        num_attention_heads=hidden // HEAD_WIDTH,
        image_size=side,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    given = {key: value for key, value in text.items() if key not in ("architectures", "model_type", "encoder_width")}
    text_config = BlipTextConfig(**given, encoder_hidden_size=hidden)
    return _Network(
        BlipVisionModel(vision_config), BlipTextModel(text_config, add_pooling_layer=False), text["hidden_size"], side
    )


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors that are used, by transformers' names."""
    return {hub.respell(key, RENAMED): value for key, value in tensors.items() if not key.startswith(UNUSED)}


def _tokenizer(network: Any, folder: Path) -> Any:
    """BERT's: its published files name neither their class nor the token that pads."""
    from transformers import BertTokenizer

    embeddings = network.text.config.vocab_size
    return tokenizers.load(BertTokenizer, folder, embeddings=embeddings, added=len(ADDED_TOKENS))
