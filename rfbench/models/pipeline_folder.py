"""A diffusers pipeline folder, read as far as its JSON goes: what it is, and whether rfbench can train it.

Nothing here loads a weight, so a folder of the wrong kind is refused in milliseconds.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from rfbench.errors import InputError
from rfbench.models import noise_schedule

FAMILIES = {
    "StableDiffusionPipeline": "Stable Diffusion 1.x or 2.x",
    "StableDiffusionXLPipeline": "Stable Diffusion XL",
}
MODEL, ENCODER = "diffusion_pytorch_model.safetensors", "model.safetensors"  # diffusers' and transformers' file names
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
NEVER_GIVEN = {  # what a UNet may ask for beside latents, timestep and text, by the key of its config that says so
    "time_cond_proj_dim": "an embedding of the guidance scale, as latent consistency models do",
    "class_embed_type": "class labels",
    "num_class_embeds": "class labels",
    "encoder_hid_dim": "embeddings of another width, which it projects",
    "encoder_hid_dim_type": "embeddings of another kind, such as images",
    "dual_cross_attention": "embeddings of text and image side by side",
}
TIME_IDS = 6  # numbers of XL's size conditioning


@dataclass(frozen=True)
class PipelineFolder:
    """A text-to-image pipeline that rfbench can train.

    Attributes:
        path: the folder.
        pipeline: the class that ``model_index.json`` names.
        force_zeros_for_empty_prompt: SDXL: whether the unconditional embedding is zeros.
        unet, vae, scheduler: the parts' configs, corrected as diffusers corrects old ones.
        encoders: the text encoders' configs, one for each of the ``text_encoders``.
        remarks: what was corrected.
    """

    path: Path
    pipeline: str
    force_zeros_for_empty_prompt: bool
    unet: dict[str, Any]
    vae: dict[str, Any]
    scheduler: dict[str, Any]
    encoders: tuple[dict[str, Any], ...]
    remarks: tuple[str, ...] = ()

    @property
    def is_xl(self) -> bool:
        return self.pipeline == "StableDiffusionXLPipeline"

    @property
    def text_encoders(self) -> tuple[str, ...]:
        return ("text_encoder", "text_encoder_2") if self.is_xl else ("text_encoder",)

    def positions(self, part: str) -> int:
        """Tokens that a text encoder takes."""
        return int(self._encoder(part).get("max_position_embeddings", 77))

    def vocabulary(self, part: str) -> int:
        """Tokens that a text encoder has embeddings of."""
        return int(self._encoder(part).get("vocab_size", 49408))

    def _encoder(self, part: str) -> dict[str, Any]:
        return self.encoders[self.text_encoders.index(part)]

    @property
    def pixels_per_latent(self) -> int:
        """How many pixels of a side one latent stands for."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)

    def latent_size(self, resolution: int | None) -> int:
        """Latents of a side for ``resolution`` pixels; the size that the UNet was trained at for None."""
        if resolution is None:
            return int(self.unet["sample_size"])
        if resolution % self.pixels_per_latent:
            raise InputError(
                f"model.resolution is {resolution}, but one latent of {self.path} stands for "
                f"{self.pixels_per_latent} pixels; use a multiple of that"
            )
        return resolution // self.pixels_per_latent


def read(path: Path, *, weights: bool = True) -> PipelineFolder:
    """The pipeline in the folder ``path``; an ``InputError`` where it cannot be trained, or a file is missing.

    ``weights`` says whether the files of weights must be there too.
    """
    index = read_json(path / "model_index.json", path)
    pipeline = str(index.get("_class_name"))
    if pipeline not in FAMILIES:
        known = ", ".join(f"{name} ({family})" for name, family in FAMILIES.items())
        raise InputError(f"model.path {path} holds a {pipeline}; rfbench trains {known}")
    is_xl = pipeline == "StableDiffusionXLPipeline"
    _check_classes(index, path)
    parts = ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")
    unet, vae, scheduler = (read_json(path / name, path) for name in parts)
    encoders = ("text_encoder", "text_encoder_2") if is_xl else ("text_encoder",)
    unet, resized = _corrected_size(unet, is_xl=is_xl)
    scheduler, changed = noise_schedule.corrected(scheduler, is_xl=is_xl)
    folder = PipelineFolder(
        path=path,
        pipeline=pipeline,
        force_zeros_for_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", True)),
        unet=unet,
        vae=vae,
        scheduler=scheduler,
        encoders=tuple(_text_config(read_json(path / part / "config.json", path), part, path) for part in encoders),
        remarks=(*resized, *changed),
    )
    _check_unet(folder)
    _check_vae(folder)
    noise_schedule.check(folder.scheduler, f"model.path {path}")
    if weights:
        _check_weights(folder)
    return folder


def read_json(file: Path, folder: Path) -> dict[str, Any]:
    """One JSON object; an ``InputError`` says which file of the pipeline ``folder`` is missing or broken."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing = file.relative_to(folder)
        raise InputError(f"model.path {folder} is not a diffusers pipeline: it has no {missing}") from None
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{file} holds a {type(found).__name__}, not an object")
    return found


def _check_classes(index: dict[str, Any], path: Path) -> None:
    """The pipeline's own list of its parts names the classes that rfbench makes of them."""
    for part, known in CLASSES.items():
        named = index.get(part)
        if isinstance(named, list) and len(named) == 2 and named[1] is not None and named[1] not in known:
            raise InputError(f"model.path {path}: the {part} is a {named[1]}; rfbench reads a {known[0]}")


def _corrected_size(unet: dict[str, Any], *, is_xl: bool) -> tuple[dict[str, Any], list[str]]:
    """The UNet's config; of 1.x files older than diffusers 0.9 the size that they meant, as diffusers corrects it."""
    size, written_by = unet.get("sample_size"), unet.get("_diffusers_version")
    if is_xl or not isinstance(size, int) or size >= 64 or written_by is None:
        return unet, []
    try:
        old = Version(Version(str(written_by)).base_version) < Version("0.9.0.dev0")
    except InvalidVersion:
        return unet, []
    if not old:
        return unet, []
    return unet | {"sample_size": 64}, [
        f"sample_size of the UNet is {size} in a file of diffusers {written_by}; taken as 64, as diffusers does"
    ]


def _text_config(config: dict[str, Any], part: str, path: Path) -> dict[str, Any]:
    """A text encoder's sizes, which older files keep in a table of their own."""
    kind = config.get("model_type")
    if kind not in ("clip_text_model", "clip"):
        raise InputError(f"model.path {path}: the {part} is a {kind}; rfbench reads CLIP's")
    return dict(config.get("text_config") or {}) | config


def _check_unet(folder: PipelineFolder) -> None:
    unet, vae, where = folder.unet, folder.vae, f"model.path {folder.path}"
    if unet.get("_class_name") != "UNet2DConditionModel":
        raise InputError(f"{where}: the UNet is a {unet.get('_class_name')}; rfbench trains a UNet2DConditionModel")
    channels, latents = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if not channels == unet.get("out_channels", 4) == latents:
        raise InputError(
            f"{where}: the UNet takes {channels} channels and gives {unet.get('out_channels', 4)}, but a latent has "
            f"{latents}: it is an inpainting or image-conditioned model, not text to image"
        )
    size = unet.get("sample_size")
    if type(size) is not int or size < 1:
        raise InputError(f"{where}: the UNet's sample_size is {size!r}, not one number of latents")
    for key, asked in NEVER_GIVEN.items():
        if unet.get(key):
            raise InputError(
                f"{where}: the UNet asks for {asked} ({key} is {unet[key]!r}), which rfbench does not give"
            )
    if unet.get("attention_type", "default") != "default":
        raise InputError(
            f"{where}: the UNet asks for boxes or images to attend to (attention_type is {unet['attention_type']!r}), "
            "which rfbench does not give"
        )
    added = unet.get("addition_embed_type")
    if added != ("text_time" if folder.is_xl else None):
        raise InputError(
            f"{where}: addition_embed_type of the UNet is {added!r}, which does not fit a {folder.pipeline}"
        )
    _check_widths(folder, where)


def _check_widths(folder: PipelineFolder, where: str) -> None:
    """The text encoders give embeddings of the widths that the UNet takes."""
    unet = folder.unet
    widths = [config.get("hidden_size", 512) for config in folder.encoders]
    if isinstance(unet.get("cross_attention_dim"), int) and unet["cross_attention_dim"] != sum(widths):
        raise InputError(
            f"{where}: the UNet takes embeddings of width {unet['cross_attention_dim']}, but the text encoders give "
            f"{' + '.join(map(str, widths))}"
        )
    if folder.is_xl:
        pooled = folder.encoders[1].get("projection_dim", 512)
        needed, given = unet.get("projection_class_embeddings_input_dim"), unet.get("addition_time_embed_dim")
        if needed != pooled + TIME_IDS * (given or 0):
            raise InputError(
                f"{where}: the UNet takes {needed} numbers beside the text, but the second text encoder's {pooled} and "
                f"{TIME_IDS} sizes of {given} are {pooled + TIME_IDS * (given or 0)}: a refiner, or of other parts"
            )


def _check_vae(folder: PipelineFolder) -> None:
    vae, where = folder.vae, f"model.path {folder.path}"
    if vae.get("_class_name") != "AutoencoderKL":
        raise InputError(f"{where}: the VAE is a {vae.get('_class_name')}; rfbench decodes with an AutoencoderKL")
    for key in ("latents_mean", "latents_std", "shift_factor"):
        if vae.get(key) is not None:
            raise InputError(f"{where}: the VAE shifts or scales its latents ({key}), which rfbench does not know")
    if vae.get("out_channels", 3) != 3:
        raise InputError(f"{where}: the VAE makes images of {vae['out_channels']} channels; rfbench scores 3, RGB")
    scale = vae.get("scaling_factor", 1)
    if not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise InputError(f"{where}: scaling_factor of the VAE is {scale!r}; it is a number above 0")
    if not isinstance(vae.get("block_out_channels"), list) or not vae["block_out_channels"]:
        raise InputError(f"{where}: vae/config.json has no block_out_channels, so the images' size is not known")


def _check_weights(folder: PipelineFolder) -> None:
    """Every part has its safetensors file, whole or in shards."""
    files = {"unet": MODEL, "vae": MODEL} | dict.fromkeys(folder.text_encoders, ENCODER)
    for part, name in files.items():
        found = folder.path / part
        if (found / name).exists() or (found / f"{name}.index.json").exists():
            continue
        others = sorted(path.name for path in found.glob("*") if path.suffix in (".safetensors", ".bin", ".msgpack"))
        has = f"it has {', '.join(others)}" if others else "it has no weights"
        raise InputError(
            f"model.path {folder.path}: there is no {part}/{name}; {has}. Only safetensors under this name are read, "
            "whole or in shards, since a pickle can run code: save the pipeline again with diffusers' save_pretrained"
        )
