"""What a run trained, in the format that its model's own library loads; and back again.

A finished run has it in ``weights/``, beside the checkpoints, which are for going on with the run and may then be
deleted. It costs a LoRA's few megabytes, or a full UNet's fp32 weights, a third of a checkpoint; like the checkpoints,
it is not for version control. ``compute.export = false`` leaves it out, and ``rfbench export`` makes it of any run.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

import torch

from rfbench.core.policy import Policy, make_policy
from rfbench.errors import InputError
from rfbench.plugins.component import find_component
from rfbench.running import checkpoint, failures
from rfbench.running.checkpoint import Owner
from rfbench.running.folder import RunFolder
from rfbench.suite.suite import Suite

Format = Literal["library", "kohya"]


def save(policy: Policy, folder: Path, format: Format = "library") -> None:
    """Writes the trained weights as ``folder``, which appears whole or not at all.

    ``kohya`` is the format of LoRA files that ComfyUI and A1111 read.
    """
    if format == "kohya" and policy.adapter is None:
        raise InputError(
            "kohya is a format of LoRA files, but this run trained all weights; export it without --format"
        )
    temporary = folder.with_name(f".{folder.name}.tmp")
    for leftover in (temporary, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    with failures.writing(temporary):
        if format == "kohya" and policy.adapter is not None:
            policy.model.save_kohya(temporary, policy.adapter)
        else:
            policy.model.save_trained(temporary, policy.adapter)
    os.rename(temporary, folder)


def load_policy(path: Path, device: torch.device) -> tuple[Policy, Suite]:
    """The policy that the run in the folder ``path`` trained: its newest checkpoint, or ``weights/`` without one."""
    folder = RunFolder(path, writer=False)
    run = folder.require_run()
    suite = Suite.model_validate(run.suite)
    saved = checkpoint.load_latest(folder.checkpoints, device, Owner.recorded(run))
    if saved is None and not folder.weights.is_dir():
        raise InputError(f"{path} has neither a checkpoint nor weights: nothing of what it trained is left")
    model = find_component("models", suite.model).make(device)
    policy = make_policy(suite, model, device)
    if saved is None:
        policy.model.load_trained(folder.weights, policy.adapter)
    else:
        policy.load_state_dict(saved.weights)
    return policy, suite
