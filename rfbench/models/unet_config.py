"""A UNet's config: what it asks for that rfbench does not give, and whether the text encoders fit it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packaging.version import InvalidVersion, Version

from rfbench.errors import InputError

NEVER_GIVEN = {  # what a UNet may ask for beside latents, timestep and text, by the key of its config that says so
    "time_cond_proj_dim": "an embedding of the guidance scale, as latent consistency models do",
    "class_embed_type": "class labels",
    "num_class_embeds": "class labels",
    "encoder_hid_dim": "embeddings of another width, which it projects",
    "encoder_hid_dim_type": "embeddings of another kind, such as images",
    "dual_cross_attention": "embeddings of text and image side by side",
}
TIME_IDS = 6  # numbers of XL's size conditioning


def corrected_size(unet: dict[str, Any], *, is_xl: bool) -> tuple[dict[str, Any], list[str]]:
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


def check(
    unet: dict[str, Any], latents: int, encoders: Mapping[str, dict[str, Any]], pipeline: str, where: str
) -> None:
    """An ``InputError`` where the UNet cannot be trained on latents of so many channels, with these text encoders."""
    channels = unet.get("in_channels", 4)
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
    if added != ("text_time" if len(encoders) == 2 else None):
        raise InputError(f"{where}: addition_embed_type of the UNet is {added!r}, which does not fit a {pipeline}")
    _check_widths(unet, list(encoders.values()), where)


def _check_widths(unet: dict[str, Any], encoders: list[dict[str, Any]], where: str) -> None:
    """The text encoders give embeddings of the widths that the UNet takes."""
    widths = [config.get("hidden_size", 512) for config in encoders]
    if isinstance(unet.get("cross_attention_dim"), int) and unet["cross_attention_dim"] != sum(widths):
        raise InputError(
            f"{where}: the UNet takes embeddings of width {unet['cross_attention_dim']}, but the text encoders give "
            f"{' + '.join(map(str, widths))}"
        )
    if len(encoders) == 2:
        pooled = encoders[1].get("projection_dim", 512)
        needed, given = unet.get("projection_class_embeddings_input_dim"), unet.get("addition_time_embed_dim")
        if needed != pooled + TIME_IDS * (given or 0):
            raise InputError(
                f"{where}: the UNet takes {needed} numbers beside the text, but the second text encoder's {pooled} and "
                f"{TIME_IDS} sizes of {given} are {pooled + TIME_IDS * (given or 0)}: a refiner, or of other parts"
            )
