"""Prompts to tokens, as the diffusers pipelines of Stable Diffusion cut them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from rfbench.hub import tokenizers
from rfbench.models.pipeline_folder import T5, PipelineFolder

T5_PADDED_TO = 128  # the embeddings of a T5 are as many as a multiple of this, more than its tokens


class Tokens:
    """A text encoder's tokens of prompts, cut and padded to one length."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self._tokenizer, self._length = tokenizer, length

    def __call__(self, prompts: Sequence[str]) -> list[list[int]]:
        """One row of token numbers per prompt."""
        tokens = self._tokenizer(list(prompts), padding="max_length", max_length=self._length, truncation=True)
        return list(tokens.input_ids)

    def truncates(self, prompt: str) -> bool:
        """Whether the prompt has more tokens than are encoded."""
        return len(self._tokenizer(prompt, verbose=False).input_ids) > self._length

    def reading(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        """What the encoder tells prompts apart by: their tokens, cut."""
        tokens = self._tokenizer(list(prompts), max_length=self._length, truncation=True)
        return [tuple(row) for row in tokens.input_ids]


class ClipTokens(Tokens):
    """A CLIP's tokens, cut and padded to the encoder's own length (77)."""

    def __init__(self, folder: PipelineFolder, part: str) -> None:
        """``part`` is the encoder's place in the pipeline; an ``InputError`` where its tokenizer is not whole."""
        from transformers import CLIPTokenizer

        tokenizer = tokenizers.load(
            CLIPTokenizer,
            folder.path / _tokenizer_of(part),
            embeddings=folder.vocabulary(part),
            positions=folder.positions(part),
        )
        super().__init__(tokenizer, tokenizer.model_max_length)
        self._read: dict[str, tuple[int, ...]] = {}  # the tokens of words

    def truncates(self, prompt: str) -> bool:
        """Short prompts need no tokenizer: a token is a byte at least, and two are added."""
        return len(prompt.encode()) > self._length - 2 and super().truncates(prompt)

    def reading(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        """CLIP's tokens never cross a space, so each word is looked up once: prompt sets may be large."""
        words = [prompt.split() for prompt in prompts]
        unread = list(set(chain.from_iterable(words)) - self._read.keys())
        if unread:
            tokens = self._tokenizer(unread, add_special_tokens=False, verbose=False).input_ids
            self._read |= zip(unread, map(tuple, tokens), strict=True)
        room = self._length - 2  # beside the signs of beginning and end
        return [tuple(chain.from_iterable(map(self._read.__getitem__, row)))[:room] for row in words]


class T5Tokens(Tokens):
    """A T5's tokens, cut and padded to a length that is chosen."""

    def __init__(self, folder: PipelineFolder, length: int) -> None:
        """An ``InputError`` where the tokenizer is not whole."""
        from transformers import T5TokenizerFast

        where, embeddings = folder.path / _tokenizer_of(T5), folder.vocabulary(T5)
        tokenizer = tokenizers.load(T5TokenizerFast, where, embeddings=embeddings, padded_to=T5_PADDED_TO)
        super().__init__(tokenizer, length)


def _tokenizer_of(part: str) -> str:
    """The tokenizer's place in the pipeline, beside that of its text encoder."""
    return part.replace("text_encoder", "tokenizer")
