"""Prompts to conditions, as the diffusers pipelines of Stable Diffusion encode them.

The encoders stay in fp32 in every precision: a prompt is encoded once and cached, so it costs next to nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.core import keyed_random
from rfbench.core.conditioning import Condition
from rfbench.models.pipeline_folder import PipelineFolder


class TextEncoder(ABC):
    """A prompt's condition, and the networks that make it."""

    encoders: list[nn.Module]

    @abstractmethod
    def __call__(self, prompt: str) -> Condition:
        """Each tensor has one row."""

    def truncates(self, prompt: str) -> bool:
        """Whether the prompt's end is left out."""
        return False


class ClipText:
    """One CLIP text encoder and its tokenizer; prompts are cut at the encoder's length (77 tokens)."""

    def __init__(self, encoder: Any, folder: PipelineFolder, part: str, device: torch.device) -> None:
        from transformers import CLIPTokenizer

        options = {"local_files_only": True}
        loaded = encoder.from_pretrained(
            folder.path, subfolder=part, dtype=torch.float32, use_safetensors=True, **options
        )
        self.encoder = loaded.to(device).eval().requires_grad_(False)
        subfolder = part.replace("text_encoder", "tokenizer")
        self._tokenizer = CLIPTokenizer.from_pretrained(folder.path, subfolder=subfolder, **options)
        self._device = device

    def truncates(self, prompt: str) -> bool:
        """Whether the prompt has more tokens than are encoded; a token is a byte at least, and two are added."""
        length: int = self._tokenizer.model_max_length
        return len(prompt.encode()) > length - 2 and len(self._tokenizer(prompt, verbose=False).input_ids) > length

    def __call__(self, prompt: str, **options: bool) -> Any:
        """The encoder's output for one prompt."""
        tokens = self._tokenizer(
            prompt,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.encoder(tokens.input_ids.to(self._device), **options)


class StableDiffusionText(TextEncoder):
    """1.x and 2.x: the encoder's last hidden state, ``text`` ``(1, tokens, channels)``."""

    def __init__(self, folder: PipelineFolder, device: torch.device) -> None:
        from transformers import CLIPTextModel

        self._clip = ClipText(CLIPTextModel, folder, "text_encoder", device)
        self.encoders = [self._clip.encoder]

    def truncates(self, prompt: str) -> bool:
        return self._clip.truncates(prompt)

    def __call__(self, prompt: str) -> Condition:
        return {"text": self._clip(prompt).last_hidden_state}


class StableDiffusionXLText(TextEncoder):
    """XL: both encoders' last but one hidden states side by side, and the second one's ``pooled`` ``(1, channels)``.

    The unconditional embedding is zeros where the pipeline says so, as it does when no negative prompt is given.
    """

    def __init__(self, folder: PipelineFolder, device: torch.device) -> None:
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        self._first = ClipText(CLIPTextModel, folder, "text_encoder", device)
        self._second = ClipText(CLIPTextModelWithProjection, folder, "text_encoder_2", device)
        self.encoders = [self._first.encoder, self._second.encoder]
        self._zeros_for_empty = folder.force_zeros_for_empty_prompt

    def truncates(self, prompt: str) -> bool:
        return self._first.truncates(prompt)

    def __call__(self, prompt: str) -> Condition:
        first, second = (clip(prompt, output_hidden_states=True) for clip in (self._first, self._second))
        text: Tensor = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        condition = {"text": text, "pooled": second.text_embeds}
        if not prompt and self._zeros_for_empty:
            return {name: torch.zeros_like(value) for name, value in condition.items()}
        return condition


class UntrainedText(TextEncoder):
    """Random embeddings of the right shape, each prompt's own; the encoders are there for the memory they take."""

    def __init__(self, folder: PipelineFolder) -> None:
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

        configs = [CLIPTextConfig.from_pretrained(folder.path, subfolder=part) for part in folder.text_encoders]
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        self.encoders = [kind(config).requires_grad_(False) for kind, config in zip(kinds, configs, strict=False)]
        self._shapes: dict[str, tuple[int, ...]] = {
            "text": (1, configs[0].max_position_embeddings, folder.unet["cross_attention_dim"])
        }
        if folder.is_xl:
            self._shapes["pooled"] = (1, configs[1].projection_dim)

    def __call__(self, prompt: str) -> Condition:
        generator, device = keyed_random.generator("embedding", prompt), next(self.encoders[0].parameters()).device
        return {name: torch.randn(*shape, generator=generator).to(device) for name, shape in self._shapes.items()}
