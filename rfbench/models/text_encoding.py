"""Prompts to conditions, as the diffusers pipelines of Stable Diffusion encode them.

The encoders stay in fp32 in every precision: a prompt is encoded once and cached, so it costs next to nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.core import keyed_random
from rfbench.core.conditioning import Condition
from rfbench.errors import InputError
from rfbench.hub import tokenizers, weights
from rfbench.models.pipeline_folder import ENCODER, PipelineFolder

NAMES = ((r"^text_model\.", ""),)  # transformers' text encoders have their tensors under text_model, or not, by version


class TextEncoder(ABC):
    """A prompt's condition, and the networks that make it."""

    encoders: list[nn.Module]

    @abstractmethod
    def __call__(self, prompt: str) -> Condition:
        """Each tensor has one row."""

    def unconditional(self) -> Condition:
        """The empty prompt's condition, as guidance uses it."""
        return self("")

    def truncates(self, prompt: str) -> bool:
        """Whether the prompt's end is left out."""
        return False


class ClipTokens:
    """One text encoder's tokens of a prompt, cut and padded to the encoder's length (77)."""

    def __init__(self, folder: PipelineFolder, part: str) -> None:
        """``part`` is the encoder's place in the pipeline; an ``InputError`` where its tokenizer is not whole."""
        from transformers import CLIPTokenizer

        self._tokenizer = tokenizers.load(
            CLIPTokenizer,
            folder.path / part.replace("text_encoder", "tokenizer"),
            embeddings=folder.vocabulary(part),
            positions=folder.positions(part),
        )
        self._read: dict[str, tuple[int, ...]] = {}  # the tokens of words

    def truncates(self, prompt: str) -> bool:
        """Whether the prompt has more tokens than are encoded; a token is a byte at least, and two are added."""
        length: int = self._tokenizer.model_max_length
        return len(prompt.encode()) > length - 2 and len(self._tokenizer(prompt, verbose=False).input_ids) > length

    def __call__(self, prompts: Sequence[str]) -> list[list[int]]:
        """One row of token numbers per prompt."""
        tokens = self._tokenizer(
            list(prompts), padding="max_length", max_length=self._tokenizer.model_max_length, truncation=True
        )
        return list(tokens.input_ids)

    def reading(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        """What the encoder tells prompts apart by: their tokens, cut.

        CLIP's tokens never cross a space, so each word is looked up once: prompt sets may be large.
        """
        words = [prompt.split() for prompt in prompts]
        unread = list(set(chain.from_iterable(words)) - self._read.keys())
        if unread:
            tokens = self._tokenizer(unread, add_special_tokens=False, verbose=False).input_ids
            self._read |= zip(unread, map(tuple, tokens), strict=True)
        room = self._tokenizer.model_max_length - 2  # beside the signs of beginning and end
        return [tuple(chain.from_iterable(map(self._read.__getitem__, row)))[:room] for row in words]


class ClipText:
    """One CLIP text encoder with its tokens."""

    def __init__(self, kind: Any, folder: PipelineFolder, part: str, device: torch.device) -> None:
        self._tokens = ClipTokens(folder, part)
        self.encoder = weights.make(
            partial(kind, encoder_config(folder, part)),
            weights.TensorFiles(folder.path / part, ENCODER),
            f"a {kind.__name__}",
            device,
            NAMES,
        ).requires_grad_(False)
        self.truncates = self._tokens.truncates
        self._device = device

    def __call__(self, prompt: str, **options: bool) -> Any:
        """The encoder's output for one prompt."""
        return self.encoder(torch.tensor(self._tokens([prompt]), device=self._device), **options)


class StableDiffusionText(TextEncoder):
    """1.x and 2.x: the encoder's last hidden state, ``text`` ``(1, tokens, channels)``."""

    def __init__(self, folder: PipelineFolder, device: torch.device) -> None:
        (self._clip,) = (ClipText(kind, folder, part, device) for part, kind in encoder_kinds(folder).items())
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
        kinds = encoder_kinds(folder)
        self._first, self._second = (ClipText(kind, folder, part, device) for part, kind in kinds.items())
        self.encoders = [self._first.encoder, self._second.encoder]
        self._zeros = folder.force_zeros_for_empty_prompt

    def truncates(self, prompt: str) -> bool:
        return self._first.truncates(prompt)

    def __call__(self, prompt: str) -> Condition:
        first, second = (clip(prompt, output_hidden_states=True) for clip in (self._first, self._second))
        text: Tensor = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return {"text": text, "pooled": second.text_embeds}

    def unconditional(self) -> Condition:
        condition = self("")
        return {name: torch.zeros_like(value) if self._zeros else value for name, value in condition.items()}


class UntrainedText(TextEncoder):
    """Random embeddings of the right shape, each prompt's own; the encoders are there for the memory they take."""

    def __init__(self, folder: PipelineFolder) -> None:
        kinds = encoder_kinds(folder)
        self.encoders = [kind(encoder_config(folder, part)).requires_grad_(False) for part, kind in kinds.items()]
        self._shapes: dict[str, tuple[int, ...]] = {
            "text": (1, folder.positions("text_encoder"), folder.unet["cross_attention_dim"])
        }
        if folder.is_xl:
            self._shapes["pooled"] = (1, encoder_config(folder, "text_encoder_2").projection_dim)

    def __call__(self, prompt: str) -> Condition:
        generator, device = keyed_random.generator("embedding", prompt), next(self.encoders[0].parameters()).device
        return {name: torch.randn(*shape, generator=generator).to(device) for name, shape in self._shapes.items()}


def encoder_kinds(folder: PipelineFolder) -> dict[str, Any]:
    """The transformers class of each text encoder, by its place in the pipeline."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    return dict(zip(folder.text_encoders, (CLIPTextModel, CLIPTextModelWithProjection), strict=False))


def encoder_config(folder: PipelineFolder, part: str) -> Any:
    """A text encoder's config; an ``InputError`` where its file describes none."""
    from transformers import CLIPTextConfig

    try:
        return CLIPTextConfig.from_pretrained(folder.path, subfolder=part, local_files_only=True)
    except Exception as error:  # whatever transformers raises of a value that does not fit
        file = folder.path / part / "config.json"
        raise InputError(f"{file} describes no network: {type(error).__name__}: {error}") from None


def check(folder: PipelineFolder) -> None:
    """An ``InputError`` where a tokenizer is not whole, or an encoder's files do not hold its tensors."""
    for part, kind in encoder_kinds(folder).items():
        ClipTokens(folder, part)
        build = partial(kind, encoder_config(folder, part))
        weights.check(build, weights.TensorFiles(folder.path / part, ENCODER), f"a {kind.__name__}", NAMES)
