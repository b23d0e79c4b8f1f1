"""What the rewards on a transformers CLIP share: loading it, and unit embeddings of images and prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from rfbench.errors import InputError

MODEL_FILES = ("config.json", "model.safetensors")
IMAGE_FILES = ("*processor_config.json",)  # transformers 5 saves preprocessor_config.json without its first syllable
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
BACKEND = "PIL resize"  # of the published processors; torchvision's differs by up to one 8-bit step per pixel


def load_clip(folder: Path, device: torch.device) -> Any:
    """The ``CLIPModel`` of a folder, fp32 and frozen; an ``InputError`` says why the folder holds none."""
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
        kind = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
        if kind != "clip":
            raise InputError(f"{advice}; its config.json says {kind!r}, not 'clip'")
        model, found = CLIPModel.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # and reported below, with the sizes
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{advice}; {error}") from None
    wrong = [f"{key} is missing" for key in sorted(found["missing_keys"])]
    wrong += [f"{key} is {tuple(has)}, not {tuple(needs)}" for key, has, needs in sorted(found["mismatched_keys"])]
    if wrong:
        raise InputError(f"{advice}; {len(wrong)} tensors do not fit config.json: {'; '.join(wrong[:3])}")
    return model.to(device).eval().requires_grad_(False)


class ClipImages:
    """Unit embeddings ``(n, features)`` of 8-bit images ``(n, 3, H, W)``, with the published preprocessing."""

    def __init__(self, clip: Any, folder: Path) -> None:
        """``folder`` holds the processor's files."""
        from transformers import AutoImageProcessor

        self._clip = clip
        self._processor = _load(AutoImageProcessor, folder, "image processor", backend="pil")

    def __call__(self, images: Tensor) -> Tensor:
        pictures = pil_images(images)
        pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"].to(self._clip.device)
        return functional.normalize(self._clip.get_image_features(pixel_values=pixels).pooler_output, dim=-1)


class ClipTexts:
    """Unit embeddings ``(n, features)`` of prompts, cut to the tokenizer's length; equal prompts are encoded once."""

    def __init__(self, clip: Any, folder: Path) -> None:
        """``folder`` holds the tokenizer's files."""
        from transformers import AutoTokenizer

        self._clip = clip
        self._length = clip.config.text_config.max_position_embeddings
        self._tokenizer = _load(AutoTokenizer, folder, "tokenizer")

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


def _load(part: Any, folder: Path, what: str, **options: Any) -> Any:
    try:
        return part.from_pretrained(folder, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no {what} of CLIP: {error}") from None
