"""A diffusers pipeline folder or hub id as a base model: what all families share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from rfbench.core.conditioning import Condition
from rfbench.core.model import Model, Reading, to_uint8
from rfbench.core.noising.process import Process
from rfbench.errors import InputError
from rfbench.hub import weights
from rfbench.hub.sources import Source
from rfbench.models import lora, text_networks
from rfbench.models.pipeline_folder import MODEL, PipelineFolder
from rfbench.models.prompt_tokens import Tokens
from rfbench.models.text_encoding import Shapes, TextEncoder, TextNetwork, UntrainedText

if TYPE_CHECKING:
    from typing_extensions import Self

ATTENTION_NAMES = (  # of a VAE written by diffusers before 0.12
    (r"(attentions\.\d+)\.query\.", r"\1.to_q."),
    (r"(attentions\.\d+)\.key\.", r"\1.to_k."),
    (r"(attentions\.\d+)\.value\.", r"\1.to_v."),
    (r"(attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
)
LOCAL_FILES = ("model_index.json", "*/*.json", "*/*.safetensors")  # pipeline_folder says which of them are missing


@dataclass(frozen=True)
class Published:
    """The pipeline that a model's config names by default.

    Attributes:
        configs: the folder in rfbench with the configs of its parts, which stand in for them until it is fetched.
    """

    path: str
    revision: str
    gigabytes: float
    configs: str


class PipelineModel(Model):
    """The denoiser of a pipeline is trained; text encoders and VAE stay frozen, in fp32 in every precision.

    A reward then sees the same pixels whatever the denoiser computes in, and XL's VAE, which overflows in fp16, needs
    no exception.

    Attributes:
        published: the default pipeline.
    """

    published: ClassVar[Published]
    _text: TextEncoder | None = None

    def __init__(self, config: Any, device: torch.device) -> None:
        folder = self.read_folder(config, self.source(config).require("model"))
        self._set_up(folder, config)
        denoiser, vae = (weights.make(*network, device, ATTENTION_NAMES) for network in _networks(folder))
        self._add_networks(denoiser, vae)
        self._tokens, self._device = self.tokens(folder, config), device
        for part in folder.encoders:
            text_networks.check(folder, part)

    @classmethod
    @abstractmethod
    def files(cls, config: Any) -> tuple[str, ...]:
        """What is read of a repository on the hub."""

    @classmethod
    @abstractmethod
    def read_folder(cls, config: Any, path: Path, *, weights: bool = True) -> PipelineFolder:
        """What the folder holds; an ``InputError`` where it cannot be trained as this model."""

    @classmethod
    @abstractmethod
    def make_process(cls, folder: PipelineFolder, config: Any) -> Process:
        """How the denoiser was trained."""

    @classmethod
    @abstractmethod
    def tokens(cls, folder: PipelineFolder, config: Any) -> dict[str, Tokens]:
        """The tokens of every text encoder, by part; an ``InputError`` where a tokenizer is not whole."""

    @abstractmethod
    def make_text(self, networks: list[TextNetwork]) -> TextEncoder:
        """What makes a prompt's condition with the text encoders."""

    @abstractmethod
    def condition_shapes(self, folder: PipelineFolder, config: Any) -> Shapes:
        """Of one prompt's condition."""

    @classmethod
    def untrained(cls, config: Any, device: torch.device) -> Self:
        """From the configs in the folder, or the known ones where the published model is not on this disk."""
        self = cls.__new__(cls)
        folder = cls.read_folder(config, cls._configs(config) or cls.source(config).require("model"), weights=False)
        self._set_up(folder, config)
        with device:
            denoiser, vae = (build() for build in _builders(folder).values())
            self._add_networks(denoiser, vae)
            self._text = UntrainedText(folder, self.condition_shapes(folder, config))
        return self

    @classmethod
    def read_process(cls, config: Any) -> Process | None:
        root = cls._configs(config)
        with suppress(InputError):  # ``check`` says what is wrong with the folder
            return cls.make_process(cls.read_folder(config, root, weights=False), config) if root else None
        return None

    def _set_up(self, folder: PipelineFolder, config: Any) -> None:
        size = folder.latent_size(config.resolution)
        self._folder, self._tokens = folder, dict[str, Tokens]()
        self.latent_shape = (folder.vae.get("latent_channels", 4), size, size)
        self.process = self.make_process(folder, config)

    def _add_networks(self, denoiser: Any, vae: Any) -> None:
        vae.encoder = vae.quant_conv = None  # images are never encoded
        self.denoiser = denoiser
        self.vae = vae.eval().requires_grad_(False)

    @property
    def text(self) -> TextEncoder:
        """The text encoders, which load when they are first needed."""
        if self._text is None:
            networks = [TextNetwork(self._folder, part, tokens, self._device) for part, tokens in self._tokens.items()]
            self._text = self.make_text(networks)
        return self._text

    def release_encoders(self) -> None:
        self._text = None

    def prompt_encoders(self) -> list[nn.Module]:
        return self.text.encoders

    def frozen_parts(self) -> dict[str, list[nn.Module]]:
        return {"VAE decoder": [self.vae]}

    @classmethod
    def source(cls, config: Any) -> Source:
        """The pipeline's files, on the hub or on this disk."""
        default = config.path == cls.published.path
        source = Source(
            setting="path",
            path=config.path,
            files=cls.files(config),
            revision=config.revision or (cls.published.revision if default else "main"),
            gigabytes=cls.published.gigabytes if default else None,
        )
        return replace(source, files=LOCAL_FILES) if source.is_local else source

    @classmethod
    def sources(cls, config: Any) -> list[Source]:
        return [cls.source(config)]

    @classmethod
    def check(cls, config: Any) -> None:
        for source in cls.sources(config):
            found = source.find()
            if found is not None:
                folder = cls.read_folder(config, found)
                folder.latent_size(config.resolution)
                cls.tokens(folder, config)
                for part in folder.encoders:
                    text_networks.check(folder, part)
                for network in _networks(folder):
                    weights.check(*network, ATTENTION_NAMES)

    @classmethod
    def remarks(cls, config: Any) -> list[str]:
        found = [source.find() for source in cls.sources(config)]
        return [remark for root in found if root for remark in cls.read_folder(config, root, weights=False).remarks]

    @classmethod
    def reading(cls, config: Any) -> Reading:
        """Prompts that every tokenizer of the model cuts to the same tokens are one prompt to it."""
        folder = cls.read_folder(config, cls.source(config).require("model"), weights=False)
        readers = list(cls.tokens(folder, config).values())
        return lambda prompts: list(zip(*(tokens.reading(prompts) for tokens in readers), strict=True))

    def encode(self, prompt: str) -> Condition:
        return self.text(prompt)

    def unconditional(self) -> Condition:
        return self.text.unconditional()

    def truncates(self, prompt: str) -> bool:
        """Whether no text encoder reads the prompt's end."""
        return bool(self._tokens) and all(tokens.truncates(prompt) for tokens in self._tokens.values())

    def decode(self, latents: Tensor) -> Tensor:
        latents = latents / self.vae.config.scaling_factor
        if self.vae.config.shift_factor:
            latents = latents + self.vae.config.shift_factor
        return to_uint8(self.vae.decode(latents, return_dict=False)[0])

    def save_trained(self, folder: Path, adapter: str | None) -> None:
        """The denoiser's folder by ``save_pretrained``, or the LoRA as ``load_lora_weights`` reads it."""
        denoiser: Any = self.denoiser
        if adapter is None:
            denoiser.save_pretrained(folder / self._part)
        else:
            lora.save(denoiser, adapter, folder, self._pipeline, self._part)

    def load_trained(self, folder: Path, adapter: str | None) -> None:
        if adapter is None:
            files = weights.TensorFiles(folder / self._part, MODEL)
            weights.load(self.denoiser, dict(files), files.path, f"this run's {self._folder.family.network}")
        else:
            lora.load(self.denoiser, adapter, folder, self._part)

    @property
    def _part(self) -> str:
        """The denoiser's place in the pipeline."""
        return self._folder.family.denoiser

    @property
    def _pipeline(self) -> Any:
        """The diffusers class of this family."""
        import diffusers

        return getattr(diffusers, self._folder.pipeline)

    @classmethod
    def _configs(cls, config: Any) -> Path | None:
        """The folder with the model's configs: its own, with or without weights, or rfbench's of the published one.

        None where there are none here.
        """
        source = cls.source(config)
        found = source.find()
        if found is None and source.path == cls.published.path:
            return Path(str(resources.files("rfbench.models") / cls.published.configs))
        if found is None and source.is_local and (Path(source.path) / "model_index.json").is_file():
            return Path(source.path)
        return found


def _networks(folder: PipelineFolder) -> Iterator[tuple[Callable[[], nn.Module], weights.TensorFiles, str]]:
    """How the denoiser and the VAE are made, of which files, and what they are."""
    for part, build in _builders(folder).items():
        yield build, weights.TensorFiles(folder.path / part, MODEL), f"its {part}/config.json"


def _builders(folder: PipelineFolder) -> dict[str, Callable[[], nn.Module]]:
    """What makes the denoiser and the VAE with random weights, by part."""
    import diffusers

    configs = {folder.family.denoiser: folder.denoiser, "vae": folder.vae}
    return {
        part: partial(getattr(diffusers, folder.family.classes[part][0]).from_config, config)
        for part, config in configs.items()
    }
