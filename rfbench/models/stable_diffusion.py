"""Stable Diffusion 1.x, 2.x and XL: a diffusers pipeline folder or hub id as a base model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from rfbench.core.conditioning import Condition
from rfbench.core.model import Model, Reading, to_uint8
from rfbench.core.noising.process import Process
from rfbench.errors import InputError
from rfbench.hub import weights
from rfbench.hub.sources import Source
from rfbench.models import lora, noise_schedule, pipeline_folder, text_encoding
from rfbench.models.pipeline_folder import ENCODER, MODEL, PipelineFolder
from rfbench.models.text_encoding import StableDiffusionText, StableDiffusionXLText, TextEncoder, UntrainedText
from rfbench.suite.settings import Settings

DEFAULT_PATH, DEFAULT_REVISION = "CompVis/stable-diffusion-v1-4", "133a221b8aa7292a167afc5127cb63fb5005638b"
FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    f"unet/{MODEL}",
    "vae/config.json",
    f"vae/{MODEL}",
    "text_encoder*/config.json",  # XL has a second one
    f"text_encoder*/{ENCODER}",
    "tokenizer*/*",
    "tokenizer*/tokenizer.json | tokenizer*/vocab.json + tokenizer*/merges.txt",
)
LOCAL_FILES = ("model_index.json", "*/*.json", "*/*.safetensors")  # pipeline_folder says which of them are missing
ATTENTION_NAMES = (  # of a VAE written by diffusers before 0.12
    (r"(attentions\.\d+)\.query\.", r"\1.to_q."),
    (r"(attentions\.\d+)\.key\.", r"\1.to_k."),
    (r"(attentions\.\d+)\.value\.", r"\1.to_v."),
    (r"(attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
)


class StableDiffusionConfig(Settings):
    """Settings of a Stable Diffusion model."""

    path: str = Field(DEFAULT_PATH, description="pipeline folder, or hub id; of the families 1.x, 2.x and XL")
    revision: str | None = Field(
        None, description="the hub's commit; None is the one known for the default path, and 'main' for others"
    )
    resolution: int | None = Field(None, ge=8, description="pixels of a side; None is what the UNet was trained at")


class StableDiffusion(Model):
    """Stable Diffusion 1.x, 2.x or XL, as its folder says; the UNet is trained, text encoders and VAE stay frozen.

    Those stay in fp32 in every precision: they cost 0.6 GB (XL: 3.4 GB), a reward then sees the same pixels whatever
    the UNet computes in, and XL's VAE, which overflows in fp16, needs no exception.
    """

    Config: ClassVar[type[Settings]] = StableDiffusionConfig

    def __init__(self, config: StableDiffusionConfig, device: torch.device) -> None:
        folder = pipeline_folder.read(StableDiffusion.sources(config)[0].require("model"))
        self._set_up(folder, config)
        unet, vae = (weights.make(*network, device, ATTENTION_NAMES) for network in _networks(folder))
        text = StableDiffusionXLText if folder.is_xl else StableDiffusionText
        self._add_networks(unet, vae, text(folder, device))

    @classmethod
    def untrained(cls, config: Any, device: torch.device) -> StableDiffusion:
        """From the configs in the folder, or those of 1.x where the default model is not on this disk."""
        self = cls.__new__(cls)
        source = StableDiffusion.sources(config)[0]
        folder = pipeline_folder.read(_configs(source) or source.require("model"), weights=False)
        self._set_up(folder, config)
        with device:
            unet, vae = _make_unet(folder), _make_vae(folder)
            self._add_networks(unet, vae, UntrainedText(folder))
        return self

    @classmethod
    def read_process(cls, config: Any) -> Process | None:
        root = _configs(StableDiffusion.sources(config)[0])
        with suppress(InputError):  # ``check`` says what is wrong with the folder
            return noise_schedule.read(pipeline_folder.read(root, weights=False).scheduler) if root else None
        return None

    def _set_up(self, folder: PipelineFolder, config: StableDiffusionConfig) -> None:
        size = folder.latent_size(config.resolution)
        self._folder = folder
        self.latent_shape = (folder.vae.get("latent_channels", 4), size, size)
        self.process = noise_schedule.read(folder.scheduler)

    def _add_networks(self, unet: Any, vae: Any, text: TextEncoder) -> None:
        vae.encoder = vae.quant_conv = None  # images are never encoded
        self.denoiser = unet
        self.vae = vae.eval().requires_grad_(False)
        self.text = text

    def frozen_parts(self) -> dict[str, list[nn.Module]]:
        return {"text encoders": self.text.encoders, "VAE decoder": [self.vae]}

    @classmethod
    def sources(cls, config: StableDiffusionConfig) -> list[Source]:
        default = config.path == DEFAULT_PATH
        source = Source(
            setting="path",
            path=config.path,
            files=FILES,
            revision=config.revision or (DEFAULT_REVISION if default else "main"),
            gigabytes=4.3 if default else None,
        )
        return [replace(source, files=LOCAL_FILES) if source.is_local else source]

    @classmethod
    def check(cls, config: Any) -> None:
        for source in cls.sources(config):
            found = source.find()
            if found is not None:
                folder = pipeline_folder.read(found)
                folder.latent_size(config.resolution)
                text_encoding.check(folder)
                for network in _networks(folder):
                    weights.check(*network, ATTENTION_NAMES)

    @classmethod
    def remarks(cls, config: Any) -> list[str]:
        found = [source.find() for source in cls.sources(config)]
        return [remark for root in found if root for remark in pipeline_folder.read(root, weights=False).remarks]

    @classmethod
    def reading(cls, config: Any) -> Reading:
        """Prompts that every tokenizer of the model cuts to the same tokens are one prompt to it."""
        (source,) = StableDiffusion.sources(config)
        folder = pipeline_folder.read(source.require("model"), weights=False)
        readers = [text_encoding.ClipTokens(folder, part) for part in folder.text_encoders]
        return lambda prompts: list(zip(*(tokens.reading(prompts) for tokens in readers), strict=True))

    def encode(self, prompt: str) -> Condition:
        return self.text(prompt)

    def unconditional(self) -> Condition:
        return self.text.unconditional()

    def truncates(self, prompt: str) -> bool:
        return self.text.truncates(prompt)

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        options = {}
        if self._folder.is_xl:
            options["added_cond_kwargs"] = {"text_embeds": condition["pooled"], "time_ids": self._time_ids(latents)}
        return denoiser(latents, timesteps, encoder_hidden_states=condition["text"], return_dict=False, **options)[0]

    def decode(self, latents: Tensor) -> Tensor:
        return to_uint8(self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0])

    def save_trained(self, folder: Path, adapter: str | None) -> None:
        """``unet/`` by ``save_pretrained``, or the LoRA as ``load_lora_weights`` reads it."""
        unet: Any = self.denoiser
        if adapter is None:
            unet.save_pretrained(folder / "unet")
        else:
            lora.save(unet, adapter, folder, self._pipeline)

    def save_kohya(self, folder: Path, adapter: str) -> None:
        lora.save_kohya(self.denoiser, adapter, folder)

    def load_trained(self, folder: Path, adapter: str | None) -> None:
        if adapter is None:
            files = weights.TensorFiles(folder / "unet", MODEL)
            weights.load(self.denoiser, dict(files), files.path, "this run's UNet")
        else:
            lora.load(self.denoiser, adapter, folder)

    @property
    def _pipeline(self) -> Any:
        """The diffusers class of this family."""
        import diffusers

        return getattr(diffusers, self._folder.pipeline)

    def _time_ids(self, latents: Tensor) -> Tensor:
        """XL's size conditioning ``(m, 6)``: original size, crop's corner, target size; an image as it is."""
        pixels = latents.shape[-1] * self._folder.pixels_per_latent
        sizes = torch.tensor([pixels, pixels, 0, 0, pixels, pixels], dtype=latents.dtype, device=latents.device)
        return sizes.expand(len(latents), 6)


def _configs(source: Source) -> Path | None:
    """The folder with the model's configs: its own, with or without weights, or that of 1.x for the default model.

    None where it is not here.
    """
    found = source.find()
    if found is None and source.path == DEFAULT_PATH:
        return Path(str(resources.files("rfbench.models") / "sd1"))
    if found is None and source.is_local and (Path(source.path) / "model_index.json").is_file():
        return Path(source.path)
    return found


def _networks(folder: PipelineFolder) -> Iterator[tuple[Callable[[], nn.Module], weights.TensorFiles, str]]:
    """How the UNet and the VAE are made, of which files, and what they are."""
    yield partial(_make_unet, folder), weights.TensorFiles(folder.path / "unet", MODEL), "its unet/config.json"
    yield partial(_make_vae, folder), weights.TensorFiles(folder.path / "vae", MODEL), "its vae/config.json"


def _make_unet(folder: PipelineFolder) -> nn.Module:
    from diffusers import UNet2DConditionModel

    unet: nn.Module = UNet2DConditionModel.from_config(folder.unet)
    return unet


def _make_vae(folder: PipelineFolder) -> nn.Module:
    from diffusers import AutoencoderKL

    vae: nn.Module = AutoencoderKL.from_config(folder.vae)
    return vae
