"""Several processes behind one small interface; accelerate is used here and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rfbench.errors import InputError
from rfbench.suite.suite import Compute, TrackerSettings


class Processes:
    """This process among all: its device, its share of the work, and sums over everyone.

    Attributes:
        device: where this process computes.
        rank, size: this process's index, and how many there are.
    """

    def __init__(self, compute: Compute) -> None:
        from accelerate import Accelerator

        cuda = torch.cuda.is_available()
        if compute.device == "cuda" and not cuda:
            raise InputError("compute.device is 'cuda', but torch sees no GPU; use --set compute.device=cpu or auto")
        # PyTorch lets convolutions round to TF32 unasked, which is as coarse as fp16
        tf32 = compute.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        self._accelerator = Accelerator(cpu=compute.device == "cpu" or not cuda)
        device: torch.device = self._accelerator.device
        self.device = torch.device("cpu") if device.type == "cpu" else device  # "cpu:0" cannot be loaded onto
        self.rank: int = self._accelerator.process_index
        self.size: int = self._accelerator.num_processes
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        wanted = compute.processes or launched
        if not self.size == launched == wanted:
            raise InputError(
                f"{wanted} processes were asked for and {launched} were launched, but {self.size} take part; start "
                "them with `torchrun --nproc-per-node N -m rfbench run ...` (or `accelerate launch --multi_gpu`), "
                "and check compute.processes"
            )

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's folder."""
        return self.rank == 0

    def wait(self) -> None:
        """Returns when every process has come here."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Parts from the other processes once all have come here: none may end while another still listens to it."""
        self.wait()
        if self.size > 1:
            torch.distributed.destroy_process_group()

    def share(self, count: int) -> range:
        """This process's part of ``range(count)``: contiguous, the shares differing by one at most."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor summed over processes. Zeros outside of a process's share make this a gather."""
        if self.size == 1:
            return tensor
        return self._accelerator.reduce(tensor.to(self.device), reduction="sum").to(tensor.device)

    def start_trackers(self, settings: TrackerSettings, folder: Path, name: str, config: dict[str, Any]) -> list[Any]:
        """accelerate's trackers, writing into ``folder``: each has ``log(values, step)`` and ``finish()``."""
        from accelerate.tracking import TensorBoardTracker, WandBTracker

        trackers = []
        if settings.tensorboard:
            trackers.append(TensorBoardTracker("tensorboard", folder))
        if settings.wandb != "off":
            quiet = {"console": "off", "silent": True}  # its own output would tear the live display
            options = {"name": name, "config": config, "dir": folder, "mode": settings.wandb, "settings": quiet}
            trackers.append(WandBTracker("rfbench", **options))
        for tracker in trackers:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                tracker.start()
            except Exception as error:  # each library has its own
                raise InputError(
                    f"the tracker {tracker.name} cannot start: {error}; turn it off, or for Weights & Biases without "
                    "a login use --set compute.trackers.wandb=offline"
                ) from error
        return trackers
