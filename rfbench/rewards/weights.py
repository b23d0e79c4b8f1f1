"""Checkpoint files of reward models: read without running code in them, loaded only where every tensor fits."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rfbench.errors import InputError
from rfbench.files import sha256
from rfbench.hub.weights import MACHINE_FAULTS


class Weights(NamedTuple):
    """A checkpoint's tensors by key, and the name that its makers wrote into it, if any."""

    tensors: dict[str, Tensor]
    name: str | None


def digest(path: Path) -> str:
    """What tells a checkpoint from another in records: the first 12 digits of the file's SHA-256."""
    return f"sha256 {sha256(path)[:12]}"


def read(path: Path) -> Weights:
    """A ``.safetensors`` file, or a file of ``torch.save`` that holds nothing but tensors and plain values."""
    if path.is_dir():
        raise InputError(f"{path} is a folder, where a checkpoint file is needed; give the file in it")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                name = (file.metadata() or {}).get("name")
            return Weights(load_file(path), name)
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)|(Trying to [^\n]*)", str(error))  # as torch.load words it
        if refused is None:
            raise InputError(f"{path} is not a checkpoint, or is damaged") from None
        raise InputError(
            f"{path} is a pickle with more than tensors and plain values in it ({refused[1] or refused[2]}), and "
            "loading that can run code. If you trust who made it, convert it once: "
            f"`rfbench reward convert {path} {path.with_suffix('.safetensors')} --trust`, and use the new file"
        ) from None
    except MACHINE_FAULTS:
        raise
    except Exception as error:  # what is no pickle is read until something does not fit, whatever that is
        raise _no_checkpoint(path, error) from None
    return _unwrap(data, path)


def outline(path: Path) -> Weights:
    """The same without numbers, as meta tensors, for what a plan checks; an old pickle that must be read is read."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
            name = (file.metadata() or {}).get("name")
        return Weights({key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, name)
    try:
        return _unwrap(torch.load(path, map_location="meta", weights_only=True, mmap=True), path)
    except MACHINE_FAULTS:
        raise
    except Exception:  # as above
        return read(path)


def convert(source: Path, target: Path, *, trust: bool) -> int:
    """Writes a checkpoint's tensors as safetensors; returns how many. ``trust`` lets the code in a pickle run."""
    if not source.is_file():
        raise InputError(f"there is no file {source}")
    if target.exists():
        raise InputError(f"{target} exists already; remove it, or choose another name")
    weights = _trusted(source) if trust else read(source)
    copies = {key: value.clone().contiguous() for key, value in weights.tensors.items()}
    save_file(copies, target, metadata={"name": weights.name} if weights.name else None)
    return len(copies)


def _trusted(path: Path) -> Weights:
    """A pickle's tensors, whatever code it runs."""
    try:
        data = torch.load(path, map_location="cpu", weights_only=False)
    except MACHINE_FAULTS:
        raise
    except Exception as error:  # that code's own, too
        raise _no_checkpoint(path, error) from None
    return _unwrap(data, path)


def _no_checkpoint(path: Path, error: Exception) -> InputError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path} is not a checkpoint, or is damaged: {first}")


def _unwrap(data: Any, path: Path) -> Weights:
    """The state dict itself, or under "state_dict" beside training's other state."""
    name = data.get("name") if isinstance(data, dict) else None
    tensors = data.get("state_dict", data) if isinstance(data, dict) else data
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise InputError(f"{path} holds no state dict: neither it nor its 'state_dict' is a table of tensors")
    return Weights(dict(tensors), name if isinstance(name, str) else None)
