"""A diffusers pipeline folder, read as far as its JSON goes: what it is, and whether rfbench can train it.

Nothing here loads a weight, so a folder of the wrong kind is refused in milliseconds.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfbench.errors import InputError
from rfbench.models import flow_schedule, noise_schedule, transformer_config, unet_config

MODEL, ENCODER = "diffusion_pytorch_model.safetensors", "model.safetensors"  # diffusers' and transformers' file names
CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
T5_TOKENIZERS = ("T5TokenizerFast", "T5Tokenizer")
T5 = "text_encoder_3"
WITHOUT_T5 = "; to leave T5 out, as its authors allow, use --set model.t5=false"


@dataclass(frozen=True)
class Family:
    """Pipelines of one architecture.

    Attributes:
        title: what people call it.
        model: the name of the base model that trains it.
        denoiser: the part that is trained.
        network: what people call that part.
        classes: the classes that rfbench makes of the parts, the first one's name for messages.
    """

    title: str
    model: str
    denoiser: str
    network: str
    classes: dict[str, tuple[str, ...]]

    @property
    def text_encoders(self) -> tuple[str, ...]:
        return tuple(part for part in self.classes if part.startswith("text_encoder"))

    @property
    def is_flow(self) -> bool:
        """Whether a transformer was trained as a rectified flow, and no UNet as a diffusion."""
        return self.denoiser == "transformer"


def _unets(title: str, *encoders: str) -> Family:
    return Family(title, "stable-diffusion", "unet", "UNet", _classes("unet", "UNet2DConditionModel", *encoders))


def _classes(denoiser: str, kind: str, *encoders: str) -> dict[str, tuple[str, ...]]:
    """Those of a pipeline's parts, with a tokenizer beside each text encoder."""
    classes: dict[str, tuple[str, ...]] = {denoiser: (kind,), "vae": ("AutoencoderKL",)}
    for number, encoder in enumerate(encoders, 1):
        end = f"_{number}" if number > 1 else ""
        classes[f"text_encoder{end}"] = (encoder,)
        classes[f"tokenizer{end}"] = CLIP_TOKENIZERS if encoder.startswith("CLIP") else T5_TOKENIZERS
    return classes


XL, PROJECTED = "StableDiffusionXLPipeline", "CLIPTextModelWithProjection"
FAMILIES = {
    "StableDiffusionPipeline": _unets("Stable Diffusion 1.x or 2.x", "CLIPTextModel"),
    XL: _unets("Stable Diffusion XL", "CLIPTextModel", PROJECTED),
    "StableDiffusion3Pipeline": Family(
        "Stable Diffusion 3 or 3.5",
        "stable-diffusion-3",
        "transformer",
        "transformer",
        _classes("transformer", "SD3Transformer2DModel", PROJECTED, PROJECTED, "T5EncoderModel"),
    ),
}


@dataclass(frozen=True)
class PipelineFolder:
    """A text-to-image pipeline that rfbench can train.

    Attributes:
        path: the folder.
        pipeline: the class that ``model_index.json`` names.
        force_zeros_for_empty_prompt: SDXL: whether the unconditional embedding is zeros.
        denoiser, vae, scheduler: the parts' configs, corrected as diffusers corrects old ones.
        encoders: the text encoders' configs, by the parts of the pipeline that are read.
        remarks: what was corrected.
    """

    path: Path
    pipeline: str
    force_zeros_for_empty_prompt: bool
    denoiser: dict[str, Any]
    vae: dict[str, Any]
    scheduler: dict[str, Any]
    encoders: dict[str, dict[str, Any]]
    remarks: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        return FAMILIES[self.pipeline]

    @property
    def is_xl(self) -> bool:
        return self.pipeline == XL

    def positions(self, part: str) -> int:
        """Tokens that a CLIP text encoder takes."""
        return int(self.encoders[part].get("max_position_embeddings", 77))

    def vocabulary(self, part: str) -> int:
        """Tokens that a text encoder has embeddings of."""
        return int(self.encoders[part].get("vocab_size", 32128 if part == T5 else 49408))

    def projection(self, part: str) -> int:
        """Numbers of a CLIP text encoder's pooled embedding."""
        return int(self.encoders[part].get("projection_dim", 512))

    @property
    def pixels_per_latent(self) -> int:
        """How many pixels of a side one latent stands for."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)

    def latent_size(self, resolution: int | None) -> int:
        """Latents of a side for ``resolution`` pixels; the size that the denoiser was trained at for None."""
        if resolution is None:
            return int(self.denoiser["sample_size"])
        patch = self.denoiser.get("patch_size", 1)
        step, most = patch * self.pixels_per_latent, self.denoiser.get("pos_embed_max_size", math.inf)
        if resolution % step:
            what = "one latent" if patch == 1 else f"a patch of {patch} latents"
            raise InputError(
                f"model.resolution is {resolution}, but {what} of {self.path} stands for {step} pixels; use a multiple "
                "of that"
            )
        if resolution // step > most:
            raise InputError(
                f"model.resolution is {resolution}, but {self.path} has positions for {most} patches of {step} pixels "
                f"of a side; use {most * step} or less"
            )
        return resolution // self.pixels_per_latent


def read(path: Path, model: str = "stable-diffusion", *, t5: bool = True, weights: bool = True) -> PipelineFolder:
    """The pipeline in the folder ``path``; an ``InputError`` where it cannot be trained, or a file is missing.

    Args:
        model: the name of the base model that is to read it.
        t5: whether the T5 encoder of Stable Diffusion 3 is read too.
        weights: whether the files of weights must be there too.
    """
    index = read_json(path / "model_index.json", path)
    family = _find_family(str(index.get("_class_name")), model, path)
    _check_classes(index, family, path)
    encoders = [part for part in family.text_encoders if t5 or part != T5]
    parts = (f"{family.denoiser}/config.json", "vae/config.json", "scheduler/scheduler_config.json")
    denoiser, vae, scheduler = (read_json(path / name, path) for name in parts)
    remarks: list[str] = []
    if not family.is_flow:
        is_xl = family is FAMILIES[XL]
        denoiser, resized = unet_config.corrected_size(denoiser, is_xl=is_xl)
        scheduler, changed = noise_schedule.corrected(scheduler, is_xl=is_xl)
        remarks = [*resized, *changed]
    folder = PipelineFolder(
        path=path,
        pipeline=index["_class_name"],
        force_zeros_for_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", True)),
        denoiser=denoiser,
        vae=vae,
        scheduler=scheduler,
        encoders={part: _text_config(family, part, path) for part in encoders},
        remarks=tuple(remarks),
    )
    _check(folder, f"model.path {path}")
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


def _find_family(pipeline: str, model: str, path: Path) -> Family:
    """The pipeline's family; an ``InputError`` where the base model ``model`` does not train it."""
    family = FAMILIES.get(pipeline)
    if family is None:
        known = ", ".join(f"{name} ({found.title})" for name, found in FAMILIES.items())
        raise InputError(f"model.path {path} holds a {pipeline}; rfbench trains {known}")
    if family.model != model:
        raise InputError(
            f"model.path {path} holds a {pipeline} ({family.title}), which the model {model} does not train; use "
            f"--set model.name={family.model}"
        )
    return family


def _check_classes(index: dict[str, Any], family: Family, path: Path) -> None:
    """The pipeline's own list of its parts names the classes that rfbench makes of them."""
    for part, known in family.classes.items():
        named = index.get(part)
        if isinstance(named, list) and len(named) == 2 and named[1] is not None and named[1] not in known:
            raise InputError(f"model.path {path}: the {part} is a {named[1]}; rfbench reads a {known[0]}")


def _text_config(family: Family, part: str, path: Path) -> dict[str, Any]:
    """A text encoder's sizes, which older files of CLIP keep in a table of their own."""
    try:
        config = read_json(path / part / "config.json", path)
    except InputError as error:
        raise InputError(f"{error}{WITHOUT_T5 if part == T5 else ''}") from None
    kind = config.get("model_type")
    if part == T5 and kind != "t5":
        raise InputError(f"model.path {path}: the {part} is a {kind}; rfbench reads a T5{WITHOUT_T5}")
    if part != T5 and kind not in ("clip_text_model", "clip"):
        raise InputError(f"model.path {path}: the {part} is a {kind}; rfbench reads CLIP's")
    return dict(config.get("text_config") or {}) | config


def _check(folder: PipelineFolder, where: str) -> None:
    """An ``InputError`` where the parts do not fit each other, or ask for what rfbench does not do."""
    denoiser, latents = folder.denoiser, folder.vae.get("latent_channels", 4)
    [kind] = folder.family.classes[folder.family.denoiser]
    if denoiser.get("_class_name") != kind:
        what = folder.family.network
        raise InputError(f"{where}: the {what} is a {denoiser.get('_class_name')}; rfbench trains a {kind}")
    if folder.family.is_flow:
        transformer_config.check(denoiser, latents, folder.encoders, where)
        flow_schedule.check(folder.scheduler, where)
    else:
        unet_config.check(denoiser, latents, folder.encoders, folder.pipeline, where)
        noise_schedule.check(folder.scheduler, where)
    _check_vae(folder, where, shifts=folder.family.is_flow)


def _check_vae(folder: PipelineFolder, where: str, *, shifts: bool) -> None:
    vae = folder.vae
    if vae.get("_class_name") != "AutoencoderKL":
        raise InputError(f"{where}: the VAE is a {vae.get('_class_name')}; rfbench decodes with an AutoencoderKL")
    for key in ("latents_mean", "latents_std", "shift_factor"):
        if vae.get(key) is not None and not (shifts and key == "shift_factor"):
            raise InputError(f"{where}: the VAE shifts or scales its latents ({key}), which rfbench does not know")
    if vae.get("out_channels", 3) != 3:
        raise InputError(f"{where}: the VAE makes images of {vae['out_channels']} channels; rfbench scores 3, RGB")
    scale = vae.get("scaling_factor", 1)
    if not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise InputError(f"{where}: scaling_factor of the VAE is {scale!r}; it is a number above 0")
    shift = vae.get("shift_factor") or 0.0
    if not isinstance(shift, int | float) or not math.isfinite(shift):
        raise InputError(f"{where}: shift_factor of the VAE is {shift!r}; it is a number")
    if not isinstance(vae.get("block_out_channels"), list) or not vae["block_out_channels"]:
        raise InputError(f"{where}: vae/config.json has no block_out_channels, so the images' size is not known")


def _check_weights(folder: PipelineFolder) -> None:
    """Every part has its safetensors file, whole or in shards."""
    files = {folder.family.denoiser: MODEL, "vae": MODEL} | dict.fromkeys(folder.encoders, ENCODER)
    for part, name in files.items():
        found = folder.path / part
        if (found / name).exists() or (found / f"{name}.index.json").exists():
            continue
        others = sorted(path.name for path in found.glob("*") if path.suffix in (".safetensors", ".bin", ".msgpack"))
        has = f"it has {', '.join(others)}" if others else "it has no weights"
        raise InputError(
            f"model.path {folder.path}: there is no {part}/{name}; {has}. Only safetensors under this name are read, "
            "whole or in shards, since a pickle can run code: save the pipeline again with diffusers' save_pretrained"
            f"{WITHOUT_T5 if part == T5 else ''}"
        )
