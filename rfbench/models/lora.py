"""A trained LoRA as files that others read: diffusers' own, and kohya's for ComfyUI and A1111; and back again.

diffusers reads several spellings of a layer's name, but one in a file: of a file that mixes them it drops layers. Here
every layer has peft's, ``unet.<module>.lora_A.weight``, which every module has; the prefix is the denoiser's part of
the pipeline.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rfbench.hub import weights

FILE = "pytorch_lora_weights.safetensors"  # diffusers' name
KOHYA_FILE = "lora-kohya.safetensors"
OLD_SPELLING = ((r"\.lora\.down\.", ".lora_A."), (r"\.lora\.up\.", ".lora_B."))  # of some layers in older files


def save(denoiser: Any, adapter: str, folder: Path, pipeline: Any, part: str) -> None:
    """``pytorch_lora_weights.safetensors``, as ``load_lora_weights`` of the diffusers class ``pipeline`` reads it.

    ``part`` is the denoiser's place in the pipeline, "unet" or "transformer".

    With the adapter's settings, since without them diffusers would take its alpha for its rank; their sets in order, so
    that two processes write the same bytes.
    """
    settings = denoiser.peft_config[adapter].to_dict()
    settings = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    layers = {f"{part}_lora_layers": _layers(denoiser, adapter), f"{part}_lora_adapter_metadata": settings}
    pipeline.save_lora_weights(folder, **layers, safe_serialization=True)


def load(denoiser: Any, adapter: str, folder: Path, part: str) -> None:
    """Takes over what ``save`` wrote, exactly."""
    from peft import set_peft_model_state_dict

    files = weights.TensorFiles(folder, FILE)
    found = {weights.respell(key.removeprefix(f"{part}."), OLD_SPELLING): tensor for key, tensor in files}
    expected = weights.shapes_of(_layers(denoiser, adapter))
    weights.require_equal(expected, weights.shapes_of(found), files.path, "this run's LoRA")
    set_peft_model_state_dict(denoiser, found, adapter_name=adapter)


def save_kohya(unet: nn.Module, adapter: str, folder: Path) -> None:
    """``lora-kohya.safetensors``: a layer's ``lora_down``, ``lora_up`` and ``alpha`` under ``lora_unet_<module>``."""
    from diffusers.utils import convert_state_dict_to_kohya

    layers = {f"unet.{key}": tensor for key, tensor in _layers(unet, adapter).items()}
    state = convert_state_dict_to_kohya(layers)
    alpha = unet.peft_config[adapter].lora_alpha  # type: ignore[union-attr,index]  # diffusers writes the rank
    state = {key: torch.tensor(float(alpha)) if key.endswith(".alpha") else value for key, value in state.items()}
    save_file({key: value.contiguous() for key, value in state.items()}, folder / KOHYA_FILE)


def _layers(denoiser: Any, adapter: str) -> dict[str, Tensor]:
    """The adapter's tensors by peft's names."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(denoiser, adapter_name=adapter))
