"""A diffusers pipeline folder, read as far as its JSON goes: what it is, and whether rfbench can train it.

Nothing here loads a weight, so a folder of the wrong kind is refused in milliseconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfbench.errors import InputError

FAMILIES = {
    "StableDiffusionPipeline": "Stable Diffusion 1.x or 2.x",
    "StableDiffusionXLPipeline": "Stable Diffusion XL",
}
PREDICTION_TYPES = ("epsilon", "v_prediction")
MODEL, ENCODER = "diffusion_pytorch_model.safetensors", "model.safetensors"  # diffusers' and transformers' file names


@dataclass(frozen=True)
class PipelineFolder:
    """A text-to-image pipeline that rfbench can train.

    Attributes:
        path: the folder.
        pipeline: the class that ``model_index.json`` names.
        force_zeros_for_empty_prompt: SDXL: whether the unconditional embedding is zeros.
        unet, vae, scheduler: the parts' configs.
    """

    path: Path
    pipeline: str
    force_zeros_for_empty_prompt: bool
    unet: dict[str, Any]
    vae: dict[str, Any]
    scheduler: dict[str, Any]

    @property
    def is_xl(self) -> bool:
        return self.pipeline == "StableDiffusionXLPipeline"

    @property
    def text_encoders(self) -> tuple[str, ...]:
        return ("text_encoder", "text_encoder_2") if self.is_xl else ("text_encoder",)

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
    parts = ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")
    unet, vae, scheduler = (read_json(path / name, path) for name in parts)
    folder = PipelineFolder(path, pipeline, bool(index.get("force_zeros_for_empty_prompt", True)), unet, vae, scheduler)
    _check_architecture(folder)
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


def _check_architecture(folder: PipelineFolder) -> None:
    unet, vae, where = folder.unet, folder.vae, f"model.path {folder.path}"
    if unet.get("_class_name") != "UNet2DConditionModel":
        raise InputError(f"{where}: the UNet is a {unet.get('_class_name')}; rfbench trains a UNet2DConditionModel")
    channels, latents = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if not channels == unet.get("out_channels", 4) == latents:
        raise InputError(
            f"{where}: the UNet takes {channels} channels and gives {unet.get('out_channels', 4)}, but a latent has "
            f"{latents}: it is an inpainting or image-conditioned model, not text to image"
        )
    if not isinstance(unet.get("sample_size"), int):
        raise InputError(f"{where}: the UNet's sample_size is {unet.get('sample_size')!r}, not one number of latents")
    if folder.is_xl != (unet.get("addition_embed_type") == "text_time"):
        raise InputError(
            f"{where}: addition_embed_type of the UNet is {unet.get('addition_embed_type')!r}, which does not fit a "
            f"{folder.pipeline}"
        )
    if vae.get("latents_mean") is not None:
        raise InputError(f"{where}: the VAE shifts its latents (latents_mean), which rfbench does not know")
    predicted = folder.scheduler.get("prediction_type", "epsilon")
    if predicted not in PREDICTION_TYPES:
        raise InputError(f"{where}: prediction_type is {predicted!r}; rfbench knows {', '.join(PREDICTION_TYPES)}")


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
            "since a pickle can run code: save the pipeline again with diffusers' save_pretrained"
        )
