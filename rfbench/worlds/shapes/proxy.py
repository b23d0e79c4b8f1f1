"""The proxy reward: a small CLIP that scores the way PickScore does, logit_scale * cos(image, prompt)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from rfbench.worlds.shapes.weights import REWARD

PREPROCESSING = "preprocessor_config.json"


class ShapesReward(torch.nn.Module):
    """Scores 32x32 pictures against sentences; differentiable in the pictures and its own weights."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, clip: CLIPModel, tokenizer: CLIPTokenizer, image_mean: Sequence[float], image_std: Sequence[float]
    ) -> None:
        super().__init__()
        self.clip = clip
        self.tokenizer = tokenizer
        self.register_buffer("mean", torch.tensor(image_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(image_std)[:, None, None], persistent=False)

    @classmethod
    def load(cls, folder: Path = REWARD) -> ShapesReward:
        """The model of a folder written by `save`, in float32 and evaluation mode."""
        config = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
        clip = CLIPModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        return cls(clip, tokenizer, config["image_mean"], config["image_std"]).eval()

    def save(self, folder: Path) -> None:
        """Write the model in its present precision, the tokenizer and the preprocessing."""
        self.clip.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        config = {
            "do_resize": False,
            "do_center_crop": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": self.mean.flatten().tolist(),
            "image_std": self.std.flatten().tolist(),
            "image_processor_type": "CLIPImageProcessor",
        }
        (folder / PREPROCESSING).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit vectors (n, dim) of pictures in 0..1, (n, 3, 32, 32)."""
        pooled = self.clip.vision_model(pixel_values=(images - self.mean) / self.std).pooler_output
        return torch.nn.functional.normalize(self.clip.visual_projection(pooled), dim=-1)

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors (n, dim) of sentences."""
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt").to(self.mean.device)
        pooled = self.clip.text_model(**tokens).pooler_output
        return torch.nn.functional.normalize(self.clip.text_projection(pooled), dim=-1)

    def forward(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score of each picture (n, 3, 32, 32) in 0..1 for its own sentence; (n,)."""
        cosine = (self.embed_images(images) * self.embed_prompts(prompts)).sum(-1)
        return self.clip.logit_scale.exp() * cosine
