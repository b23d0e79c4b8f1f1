"""What a run was made with: versions, commit, device."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("rfbench", "torch", "diffusers", "transformers", "accelerate", "peft", "numpy", "pillow")


def describe(device: torch.device) -> dict[str, Any]:
    """What a run's record says of its making."""
    return {
        "device": device_name(device),
        "versions": versions(),
        "git_commit": git_commit(),
        "host": platform.node(),
        "job": None,
        "restart": None,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str | None:
    """The commit of the source tree, with ``-dirty`` when tracked files differ from it; None for an installed wheel."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU with its number of threads (which can change the last bits of a sum)."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
