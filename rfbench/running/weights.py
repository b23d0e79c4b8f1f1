"""What a run trained, in the format that its model's own library loads; and back again.

A finished run has it in ``weights/``, beside the checkpoints, which are for going on with the run and may then be
deleted. It costs a LoRA's few megabytes, or a full UNet's fp32 weights, a third of a checkpoint; like the checkpoints,
it is not for version control. ``compute.export = false`` leaves it out, and ``rfbench export`` makes it of any run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from rfbench.core.policy import Policy, make_policy
from rfbench.errors import InputError
from rfbench.files import set_aside, whole_folder
from rfbench.plugins.component import find_component
from rfbench.running import checkpoint, failures
from rfbench.running.checkpoint import Owner
from rfbench.running.folder import RunFolder
from rfbench.suite.suite import Suite

Format = Literal["native", "kohya"]


def save(policy: Policy, run: Path, format: Format = "native") -> Path:
    """Writes the trained weights of the run in ``run`` as its ``weights/``, in the place of those that are there.

    ``kohya`` is the format of LoRA files that ComfyUI and A1111 read; those go to ``weights-kohya/``.
    """
    folder = RunFolder(run, writer=False).weights
    folder = folder.with_name(f"{folder.name}-kohya") if format == "kohya" else folder
    _write(policy, folder, format)
    return folder


def export(policy: Policy, folder: Path, format: Format = "native") -> Path:
    """Writes the trained weights as ``folder``, which must be new: nothing that is there is touched."""
    require_new(folder)
    _write(policy, folder, format)
    return folder


def require_new(folder: Path) -> None:
    """An ``InputError`` where there is something at the path of an export."""
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{folder} exists already, and is left as it is; give --out a new folder, or remove it first")


def _write(policy: Policy, folder: Path, format: Format) -> None:
    """The weights, whole, as ``folder``."""
    if format == "kohya" and policy.adapter is None:
        raise InputError(
            "kohya is a format of LoRA files, but this run trained all weights; export it without --format"
        )
    with whole_folder(folder) as temporary, failures.writing(temporary):
        if format == "kohya" and policy.adapter is not None:
            policy.model.save_kohya(temporary, policy.adapter)
        else:
            policy.model.save_trained(temporary, policy.adapter)


def load_policy(path: Path, device: torch.device) -> tuple[Policy, Suite]:
    """The policy that the run in the folder ``path`` trained: its newest checkpoint, or ``weights/`` without one."""
    folder = RunFolder(path, writer=False)
    run = folder.require_run()
    suite = Suite.model_validate(run.suite)
    saved = checkpoint.load_latest(folder.checkpoints, device, Owner.recorded(run))
    weights = folder.weights if folder.weights.is_dir() else set_aside(folder.weights)  # an export was killed
    if saved is None and not weights.is_dir():
        raise InputError(f"{path} has neither a checkpoint nor weights: nothing of what it trained is left")
    model = find_component("models", suite.model).make(device)
    policy = make_policy(suite, model, device)
    if saved is None:
        policy.model.load_trained(weights, policy.adapter)
    else:
        policy.load_state_dict(saved.weights)
    return policy, suite
