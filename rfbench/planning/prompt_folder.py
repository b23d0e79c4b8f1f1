"""Where encoded prompts are kept: in ``compute.prompt_folder``, a folder for each way of encoding them."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import torch

from rfbench.errors import InputError
from rfbench.files import sha256_of_all
from rfbench.planning.plan import Plan


def make_prompt_folder(plan: Plan, device: torch.device) -> Path | None:
    """Where prompts that this model has encoded are kept; an ``InputError`` where it cannot be made."""
    setting = plan.suite.compute.prompt_folder
    if setting is None:
        return None
    folder = Path(setting).expanduser() / _encoder_key(plan, device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        raise InputError(
            f"compute.prompt_folder is {setting}, in which nothing can be kept: {error.strerror}; give a folder that "
            "can be written, which need not exist yet"
        ) from None
    return folder


def _encoder_key(plan: Plan, device: torch.device) -> str:
    """What encoded prompts depend on: the model's code, settings and files, the libraries, the kind of device."""
    model = plan.model
    code = {place: record.model_dump() for place, record in model.plugins("model").items()}
    settings = {name: value for name, value in model.resolved().items() if name != "path"}
    files = {place: sha256_of_all(paths) for place, paths in model.inputs("model").items()}
    origins = [source.origin() for source in model.sources() if not source.is_local]
    libraries = [version(name) for name in ("rfbench", "torch", "transformers")]
    key = json.dumps([code, settings, files, origins, libraries, device.type], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:16]
