"""The text encoders of a pipeline folder: their networks, made of their files exactly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from rfbench.errors import InputError
from rfbench.hub import weights
from rfbench.models.pipeline_folder import ENCODER, T5, PipelineFolder

CLIP_NAMES = ((r"^text_model\.", ""),)  # transformers has the tensors under text_model, or not, by version
T5_NAMES = ((r"^shared\.", "embed_tokens."), (r"^encoder\.", ""))


def build(folder: PipelineFolder, part: str) -> nn.Module:
    """The network of an encoder, with random weights; of a T5 its stack alone, in which embeddings have one name."""
    return _builder(folder, part)()


def load(folder: PipelineFolder, part: str, device: torch.device) -> nn.Module:
    """The network with the tensors of its files, frozen."""
    make, files, what, names = _network(folder, part)
    return weights.make(make, files, what, device, names).requires_grad_(False)


def check(folder: PipelineFolder, part: str) -> None:
    """The ``InputError`` that ``load`` would raise."""
    weights.check(*_network(folder, part))


def _network(
    folder: PipelineFolder, part: str
) -> tuple[Callable[[], nn.Module], weights.TensorFiles, str, weights.Names]:
    files = weights.TensorFiles(folder.path / part, ENCODER)
    what = f"a {folder.family.classes[part][0]}"
    return _builder(folder, part), files, what, T5_NAMES if part == T5 else CLIP_NAMES


def _builder(folder: PipelineFolder, part: str) -> Callable[[], nn.Module]:
    import transformers

    make: Any = partial(getattr(transformers, folder.family.classes[part][0]), config(folder, part))
    return (lambda: make().encoder) if part == T5 else make


def config(folder: PipelineFolder, part: str) -> Any:
    """An encoder's config; an ``InputError`` where its file describes none."""
    from transformers import CLIPTextConfig, T5Config

    kind = T5Config if part == T5 else CLIPTextConfig
    try:
        return kind.from_pretrained(folder.path, subfolder=part, local_files_only=True)
    except Exception as error:  # whatever transformers raises of a value that does not fit
        file = folder.path / part / "config.json"
        raise InputError(f"{file} describes no network: {type(error).__name__}: {error}") from None
