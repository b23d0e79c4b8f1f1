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
from rfbench.models import text_networks
from rfbench.models.pipeline_folder import PipelineFolder
from rfbench.models.prompt_tokens import Tokens

Shapes = dict[str, tuple[int, ...]]


class TextNetwork:
    """One text encoder with its tokens."""

    def __init__(self, folder: PipelineFolder, part: str, tokens: Tokens, device: torch.device) -> None:
        self._tokens, self._device = tokens, device
        self.network = text_networks.load(folder, part, device)

    def __call__(self, prompt: str, **options: bool) -> Any:
        """The encoder's output for one prompt."""
        return self.network(torch.tensor(self._tokens([prompt]), device=self._device), **options)


class TextEncoder(ABC):
    """A prompt's condition, and the networks that make it."""

    encoders: list[nn.Module]

    @abstractmethod
    def __call__(self, prompt: str) -> Condition:
        """Each tensor has one row."""

    def unconditional(self) -> Condition:
        """The empty prompt's condition, as guidance uses it."""
        return self("")


class StableDiffusionText(TextEncoder):
    """1.x and 2.x: the encoder's last hidden state, ``text`` ``(1, tokens, channels)``."""

    def __init__(self, clip: TextNetwork) -> None:
        self._clip, self.encoders = clip, [clip.network]

    def __call__(self, prompt: str) -> Condition:
        return {"text": self._clip(prompt).last_hidden_state}


class StableDiffusionXLText(TextEncoder):
    """XL: both encoders' last but one hidden states side by side, and the second one's ``pooled`` ``(1, channels)``.

    The unconditional embedding is zeros where the pipeline says so, as it does when no negative prompt is given.
    """

    def __init__(self, first: TextNetwork, second: TextNetwork, *, zeros: bool) -> None:
        self._first, self._second, self._zeros = first, second, zeros
        self.encoders = [first.network, second.network]

    def __call__(self, prompt: str) -> Condition:
        first, second = (clip(prompt, output_hidden_states=True) for clip in (self._first, self._second))
        text: Tensor = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return {"text": text, "pooled": second.text_embeds}

    def unconditional(self) -> Condition:
        condition = self("")
        return {name: torch.zeros_like(value) if self._zeros else value for name, value in condition.items()}


class StableDiffusion3Text(TextEncoder):
    """3 and 3.5: ``clip``, both CLIP encoders' last but one hidden states side by side; ``pooled``, their projections
    side by side; and ``t5``, the last hidden state of a T5, where it is read.

    ``(1, tokens, channels)`` each, and ``(1, channels)`` the pooled one.
    """

    def __init__(self, first: TextNetwork, second: TextNetwork, t5: TextNetwork | None = None) -> None:
        self._clips, self._t5 = [first, second], t5
        self.encoders = [encoder.network for encoder in (first, second, t5) if encoder]

    def __call__(self, prompt: str) -> Condition:
        clips = [clip(prompt, output_hidden_states=True) for clip in self._clips]
        condition = {
            "clip": torch.cat([clip.hidden_states[-2] for clip in clips], dim=-1),
            "pooled": torch.cat([clip.text_embeds for clip in clips], dim=-1),
        }
        return condition | {"t5": self._t5(prompt).last_hidden_state} if self._t5 else condition


class UntrainedText(TextEncoder):
    """Random embeddings of given shapes, each prompt's own; the encoders are there for the memory they take."""

    def __init__(self, folder: PipelineFolder, shapes: Shapes) -> None:
        self.encoders = [text_networks.build(folder, part).requires_grad_(False) for part in folder.encoders]
        self._shapes = shapes

    def __call__(self, prompt: str) -> Condition:
        generator, device = keyed_random.generator("embedding", prompt), next(self.encoders[0].parameters()).device
        return {name: torch.randn(*shape, generator=generator).to(device) for name, shape in self._shapes.items()}
