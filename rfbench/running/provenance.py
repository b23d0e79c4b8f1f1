"""What a run was made with, and where: versions, commit, device, host, the cluster's job."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
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
        **place(),
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
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # a machine without git
        return None
    return result.stdout.strip() or None


def code_version() -> str:
    """Version and commit in one line; of a changed source tree, a digest of the changes too."""
    commit = git_commit() or "installed"
    if commit.endswith("-dirty"):
        command = ["git", "-C", str(Path(__file__).parents[2]), "diff", "HEAD"]
        changes = subprocess.run(command, capture_output=True, check=False).stdout
        commit += f"-{hashlib.sha256(changes).hexdigest()[:8]}"
    return f"rfbench {versions()['rfbench']}, commit {commit}"


def place() -> dict[str, Any]:
    """Where the run is made: the host; under Slurm its job and how often that was restarted, else None for both."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")
    return {"host": socket.gethostname(), "job": job, "restart": restarts() if job else None}


def restarts() -> int:
    """How often Slurm has started this job again."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU with its number of threads (which can change the last bits of a sum)."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
