"""Prompts to conditions, as the diffusers pipelines of Stable Diffusion encode them.

The encoders stay in fp32 in every precision: a prompt is encoded once and cached, so it costs next to nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rfbench.condition import Condition
from rfbench.models.pipeline_folder import PipelineFolder


class ClipText:
    """One CLIP text encoder and its tokenizer; prompts are cut at the encoder's length (77 tokens)."""

    def __init__(self, encoder: Any, folder: PipelineFolder, part: str, device: torch.device) -> None:
        from transformers import CLIPTokenizer

        options = {"local_files_only": True}
        loaded = encoder.from_pretrained(
            folder.path, subfolder=part, dtype=torch.float32, use_safetensors=True, **options
        )
        self._encoder = loaded.to(device).eval().requires_grad_(False)
        subfolder = part.replace("text_encoder", "tokenizer")
        self._tokenizer = CLIPTokenizer.from_pretrained(folder.path, subfolder=subfolder, **options)
        self._device = device

    def __call__(self, prompt: str, **options: bool) -> Any:
        """The encoder's output for one prompt."""
        tokens = self._tokenizer(
            prompt,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self._encoder(tokens.input_ids.to(self._device), **options)


class StableDiffusionText:
    """1.x and 2.x: the encoder's last hidden state, ``text`` ``(1, tokens, channels)``."""

    def __init__(self, folder: PipelineFolder, device: torch.device) -> None:
        from transformers import CLIPTextModel

        self._clip = ClipText(CLIPTextModel, folder, "text_encoder", device)

    def __call__(self, prompt: str) -> Condition:
        return {"text": self._clip(prompt).last_hidden_state}


class StableDiffusionXLText:
    """XL: both encoders' last but one hidden states side by side, and the second one's ``pooled`` ``(1, channels)``.

    The unconditional embedding is zeros where the pipeline says so, as it does when no negative prompt is given.
    """

    def __init__(self, folder: PipelineFolder, device: torch.device) -> None:
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        self._first = ClipText(CLIPTextModel, folder, "text_encoder", device)
        self._second = ClipText(CLIPTextModelWithProjection, folder, "text_encoder_2", device)
        self._zeros_for_empty = folder.force_zeros_for_empty_prompt

    def __call__(self, prompt: str) -> Condition:
        first, second = (clip(prompt, output_hidden_states=True) for clip in (self._first, self._second))
        text: Tensor = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        condition = {"text": text, "pooled": second.text_embeds}
        if not prompt and self._zeros_for_empty:
            return {name: torch.zeros_like(value) for name, value in condition.items()}
        return condition
