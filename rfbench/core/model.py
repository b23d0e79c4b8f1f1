"""What rfbench asks of a base model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rfbench.core.conditioning import Condition
from rfbench.core.finite import NonFiniteImagesError, all_finite, broken_rows
from rfbench.core.noising.process import Process
from rfbench.core.schedule import Schedule
from rfbench.errors import InputError
from rfbench.hub.sources import Sourced
from rfbench.hub.weights import require_equal, shapes_of
from rfbench.suite.settings import Settings
from rfbench.suite.suite import Suite

Reading = Callable[[Sequence[str]], list[Hashable]]  # two prompts whose values are equal cannot be told apart


class Model(Sourced, ABC):
    """A latent diffusion model: a denoiser to finetune, and the frozen parts around it.

    A model is made from its ``Config`` and a device, and loads its weights in ``__init__``.

    Attributes:
        denoiser: the network that is finetuned; fp32.
        latent_shape: shape of one latent, without the batch.
        process: how the denoiser was trained: a `Diffusion` or a `Flow`.
        image_kind: what ``decode`` gives; a reward that says what it scores must say the same.
        exact_units: the unit of each of the ``exact_measures``.
        lora_modules: what a LoRA is put on where the suite does not say, by the ends of the modules' names.
    """

    Config: ClassVar[type[Settings]] = Settings
    image_kind: ClassVar[str] = "pixels"
    denoiser: nn.Module
    latent_shape: tuple[int, ...]
    process: Process
    exact_units: ClassVar[dict[str, str]] = {}
    lora_modules: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    @classmethod
    def untrained(cls, config: Any, device: torch.device) -> Model | None:
        """The architecture with random weights and embeddings, for accounts and benchmarks; None where not offered.

        On PyTorch's meta device it takes no memory.
        """
        return None

    @classmethod
    def read_process(cls, config: Any) -> Process | None:
        """``process`` as far as files tell it before the weights load; None where they do not."""
        return None

    @classmethod
    def check_suite(cls, config: Any, suite: Suite) -> None:
        """Raises an ``InputError`` where the suite asks what a model of this ``Config`` cannot do; loads no weights."""

    @classmethod
    def check_prompts(cls, config: Any, prompts: Iterable[str]) -> None:
        """Raises an ``InputError`` for the first of ``prompts`` that has no condition; most models take any text."""

    def release_encoders(self) -> None:
        """Frees what encodes prompts, which is loaded again should ``encode`` be asked; most models keep it."""

    def prompt_encoders(self) -> list[nn.Module]:
        """The networks that encode prompts, for the account of memory."""
        return []

    def frozen_parts(self) -> dict[str, list[nn.Module]]:
        """The networks beside the denoiser and the encoders of prompts, for the account of memory."""
        return {}

    @classmethod
    def reading(cls, config: Any) -> Reading:
        """What the model reads of prompts, from its files and without weights; by default their text."""
        return lambda prompts: list(prompts)

    @abstractmethod
    def encode(self, prompt: str) -> Condition:
        """One prompt's condition, each tensor with one row."""

    def unconditional(self) -> Condition:
        """What guidance leads away from: the empty prompt's condition, in most models."""
        return self.encode("")

    def truncates(self, prompt: str) -> bool:
        """Whether ``encode`` leaves out the prompt's end; most models take any length."""
        return False

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of the prompt that the model was never trained on; none are told of most models."""
        return []

    @abstractmethod
    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The output of ``denoiser`` (the trained network or its frozen copy) for latents ``(m, ...)`` at ``(m,)``."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Images of clean latents ``(m, ...)``, as rewards score them: the one place where pixels become 8-bit.

        ``(m, 3, H, W)`` uint8; a world without pixels gives what its own rewards score, and draws it in ``pictures``.
        """

    def pictures(self, images: Tensor) -> Tensor:
        """What a person sees of decoded images: ``(m, 3, H, W)`` uint8."""
        return images

    def save_trained(self, folder: Path, adapter: str | None) -> None:
        """Writes what was trained, the ``adapter`` or all weights, as the model's own library loads it.

        A model without such a format gets its trained parameters by name, ``weights.safetensors``.
        """
        trained = {name: p.detach().contiguous() for name, p in self.denoiser.named_parameters() if p.requires_grad}
        save_file(trained, folder / "weights.safetensors")

    def save_kohya(self, folder: Path, adapter: str) -> None:
        """Writes the ``adapter`` as ComfyUI and A1111 read it; an ``InputError`` for a model that they do not know."""
        raise InputError(f"{type(self).__name__} has no kohya format; export it without --format")

    def load_trained(self, folder: Path, adapter: str | None) -> None:
        """Takes over what ``save_trained`` wrote, exactly."""
        path = folder / "weights.safetensors"
        state = load_file(path)
        trained = {name: p for name, p in self.denoiser.named_parameters() if p.requires_grad}
        require_equal(shapes_of(trained), shapes_of(state), path, "what this run trained")
        self.denoiser.load_state_dict(state, strict=False)

    def prompt_features(self, condition: Condition) -> Tensor:
        """One vector per row ``(m, features)``, for networks beside the denoiser: each tensor's mean over tokens."""
        values = condition.values()
        return torch.cat([value.flatten(1, -2).mean(1) if value.dim() > 2 else value for value in values], dim=1)

    def exact_measures(self, schedule: Schedule, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Measures that this model knows in closed form, ``(prompts,)`` each, for the evaluation; most know none."""
        return {}


def to_uint8(images: Tensor) -> Tensor:
    """``(m, 3, H, W)`` in [-1, 1] to 8-bit RGB, rounded as diffusers' image processor does.

    NaN would become black, so a ``NonFiniteImagesError`` says which images have any.
    """
    if not all_finite(images):
        rows = broken_rows(images)
        raise NonFiniteImagesError(f"{len(rows)} of {len(images)} decoded images are not finite", rows)
    return ((images / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
