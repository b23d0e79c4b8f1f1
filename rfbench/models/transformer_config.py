"""The config of Stable Diffusion 3's transformer: whether latents and text encoders fit it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rfbench.errors import InputError

SIZES = {  # diffusers' defaults
    "sample_size": 128,
    "patch_size": 2,
    "pos_embed_max_size": 96,
    "num_attention_heads": 18,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1152,
    "pooled_projection_dim": 2048,
}


def check(transformer: dict[str, Any], latents: int, encoders: Mapping[str, dict[str, Any]], where: str) -> None:
    """An ``InputError`` where it cannot be trained on latents of so many channels, with these text encoders.

    Args:
        encoders: the configs of two CLIP encoders, and of a T5 where it is read.
    """
    channels = transformer.get("in_channels", 16)
    given = transformer.get("out_channels", 16) or channels
    if not channels == given == latents:
        raise InputError(
            f"{where}: the transformer takes {channels} channels and gives {given}, but a latent has {latents}: it is "
            "an inpainting or image-conditioned model, not text to image"
        )
    sizes = {key: transformer.get(key, default) for key, default in SIZES.items()}
    for key, value in sizes.items():
        if type(value) is not int or value < 1:
            raise InputError(f"{where}: {key} of the transformer is {value!r}, not a whole number from 1")
    patches, rest = divmod(sizes["sample_size"], sizes["patch_size"])
    if rest or patches > sizes["pos_embed_max_size"]:
        raise InputError(
            f"{where}: the transformer's sample_size of {sizes['sample_size']} latents is not cut into patches of "
            f"{sizes['patch_size']}, of which it has positions for {sizes['pos_embed_max_size']} of a side"
        )
    width = sizes["num_attention_heads"] * sizes["attention_head_dim"]
    if sizes["caption_projection_dim"] != width:
        raise InputError(
            f"{where}: caption_projection_dim of the transformer is {sizes['caption_projection_dim']}, but its "
            f"{sizes['num_attention_heads']} heads of {sizes['attention_head_dim']} are {width} wide"
        )
    _check_text(sizes, [*encoders.values()], where)


def _check_text(sizes: dict[str, Any], encoders: list[dict[str, Any]], where: str) -> None:
    """The text encoders give embeddings of the widths that the transformer takes."""
    first, second, *t5 = encoders
    joint = sizes["joint_attention_dim"]
    clip = first.get("hidden_size", 512) + second.get("hidden_size", 512)
    if clip > joint:
        raise InputError(
            f"{where}: the CLIP encoders give embeddings of width {clip}, but the transformer takes {joint} "
            "(joint_attention_dim)"
        )
    if t5 and t5[0].get("d_model", 512) != joint:
        raise InputError(
            f"{where}: the T5 gives embeddings of width {t5[0].get('d_model', 512)}, but the transformer takes {joint} "
            "(joint_attention_dim)"
        )
    pooled = first.get("projection_dim", 512) + second.get("projection_dim", 512)
    if pooled != sizes["pooled_projection_dim"]:
        raise InputError(
            f"{where}: the CLIP encoders' pooled embeddings are {pooled} numbers together, but the transformer takes "
            f"{sizes['pooled_projection_dim']} (pooled_projection_dim)"
        )
