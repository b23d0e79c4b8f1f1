"""What the rewards on a transformers CLIP share: loading it, and unit embeddings of images and prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from rfbench.errors import InputError
from rfbench.hub import tokenizers
from rfbench.hub import weights as hub

MODEL_FILES = ("config.json", "model.safetensors")
IMAGE_FILES = ("*processor_config.json",)  # transformers 5 saves preprocessor_config.json without its first syllable
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
BACKEND = "PIL resize"  # of the published processors; torchvision's differs by up to one 8-bit step per pixel


def _network(folder: Path) -> tuple[partial[Any], hub.TensorFiles, str]:
    """How the ``CLIPModel`` of a folder is made, of which files, and what it is."""
    from transformers import AutoConfig, CLIPModel

    advice = f"{folder} must be the folder of a transformers CLIPModel, with {' and '.join(MODEL_FILES)}"
    if not folder.is_dir():
        raise InputError(f"{advice}; it is a file")
    if not (folder / MODEL_FILES[1]).exists() and (folder / "pytorch_model.bin").exists():
        raise InputError(
            f"{advice}; it has only pytorch_model.bin, a pickle: `rfbench reward convert {folder}/pytorch_model.bin "
            f"{folder}/model.safetensors`"
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{advice}; {error}") from None
    if config.model_type != "clip":
        raise InputError(f"{advice}; its config.json says {config.model_type!r}, not 'clip'")
    return partial(CLIPModel, config), hub.TensorFiles(folder, MODEL_FILES[1]), f"the CLIPModel of {folder}/config.json"


def load_clip(folder: Path, device: torch.device) -> Any:
    """The ``CLIPModel`` of a folder, fp32 and frozen; an ``InputError`` says why the folder holds none."""
    return hub.make(*_network(folder), device).requires_grad_(False)


def check_clip(model: Path, images: Path | None = None, texts: Path | None = None) -> None:
    """The ``InputError`` that making one of these raises: the model, the image processor, the tokenizer."""
    network = _network(model)
    hub.check(*network)
    if images is not None:
        _processor(images)
    if texts is not None:
        _tokenizer(network[0].args[0], texts)


class ClipImages:
    """Unit embeddings ``(n, features)`` of 8-bit images ``(n, 3, H, W)``, with the published preprocessing."""

    def __init__(self, clip: Any, folder: Path) -> None:
        """``folder`` holds the processor's files."""
        self._clip, self._processor = clip, _processor(folder)

    def __call__(self, images: Tensor) -> Tensor:
        pictures = pil_images(images)
        pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"].to(self._clip.device)
        return functional.normalize(self._clip.get_image_features(pixel_values=pixels).pooler_output, dim=-1)


class ClipTexts:
    """Unit embeddings ``(n, features)`` of prompts, cut to the tokenizer's length; equal prompts are encoded once."""

    def __init__(self, clip: Any, folder: Path) -> None:
        """``folder`` holds the tokenizer's files."""
        self._clip, self._tokenizer = clip, _tokenizer(clip.config, folder)
        self._length = clip.config.text_config.max_position_embeddings

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        return per_distinct(prompts, self._encode)

    def _encode(self, prompts: list[str]) -> Tensor:
        tokens = self._tokenizer(
            prompts, padding="max_length", truncation=True, max_length=self._length, return_tensors="pt"
        ).to(self._clip.device)
        return functional.normalize(self._clip.get_text_features(**tokens).pooler_output, dim=-1)


def pil_images(images: Tensor) -> list[Image.Image]:
    """8-bit RGB ``(n, 3, H, W)`` as PIL images."""
    return [Image.fromarray(pixels.numpy()) for pixels in images.cpu().permute(0, 2, 3, 1).contiguous()]


def per_distinct(prompts: Sequence[str], encode: Callable[[list[str]], Tensor]) -> Tensor:
    """One row per prompt, with ``encode`` called on the distinct ones: the prompts of a group are equal."""
    distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
    return encode(list(distinct))[[distinct[prompt] for prompt in prompts]]


def _processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no image processor of CLIP: {error}") from None


def _tokenizer(config: Any, folder: Path) -> Any:
    from transformers import CLIPTokenizer

    return tokenizers.load(CLIPTokenizer, folder, embeddings=config.text_config.vocab_size)
