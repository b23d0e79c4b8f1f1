"""Several processes behind one small interface; accelerate is used here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rfbench.core.meter import Meter
from rfbench.errors import ElsewhereError, InputError, LostProcessError
from rfbench.suite.launcher import check_launcher
from rfbench.suite.suite import Compute, TrackerSettings

BUCKET_BYTES = 32 * 2**20  # of gradients in one message: few enough messages, little enough memory beside them


class Processes:
    """This process among all: its device, its share of the work, and sums over everyone.

    Attributes:
        device: where this process computes.
        rank, size: this process's index, and how many there are.
    """

    def __init__(self, compute: Compute) -> None:
        from accelerate import Accelerator, InitProcessGroupKwargs

        launched = check_launcher(os.environ, compute)
        cuda = torch.cuda.is_available()
        if compute.device == "cuda" and not cuda:
            raise InputError("compute.device is 'cuda', but torch sees no GPU; use --set compute.device=cpu or auto")
        # PyTorch lets convolutions round to TF32 unasked, which is as coarse as fp16
        tf32 = compute.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        self._timeout_minutes = compute.timeout_minutes
        patience = InitProcessGroupKwargs(timeout=timedelta(minutes=compute.timeout_minutes))
        with self._meeting() if launched > 1 else nullcontext():
            self._accelerator = Accelerator(cpu=compute.device == "cpu" or not cuda, kwargs_handlers=[patience])
        device: torch.device = self._accelerator.device
        self.device = torch.device("cpu") if device.type == "cpu" else device  # "cpu:0" cannot be loaded onto
        self.rank: int = self._accelerator.process_index
        self.size: int = self._accelerator.num_processes
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
        with self._meeting():
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
        with self._meeting():
            return self._accelerator.reduce(tensor.to(self.device), reduction="sum").to(tensor.device)

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over processes: many of them in one message, where they are small."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            total = self.sum(torch.cat([tensor.flatten() for tensor in bucket]))
            for tensor, part in zip(bucket, total.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def any(self, here: bool) -> bool:
        """Whether it holds on any process."""
        return bool(self.sum(torch.tensor(float(here))))

    def agree(self, what: str, value: str) -> None:
        """An ``InputError`` on the main process, and an end without words on the others, where ``value`` differs."""
        if self.size == 1:
            return
        from accelerate.utils import gather_object

        with self._meeting():
            values = gather_object([value])
        if len(set(values)) == 1:
            return
        seen = "; ".join(f"process {rank}: {found}" for rank, found in enumerate(values))
        error = InputError(
            f"the processes of this run do not see the same {what} ({seen}); they need a results folder (--out) on a "
            "disk that all machines share"
        )
        raise error if self.is_main else ElsewhereError(str(error))

    @contextmanager
    def together(self) -> Iterator[None]:
        """What goes wrong inside of it on one process ends all of them, and that one says why."""
        try:
            yield
        except Exception:
            self.any(True)
            raise
        if self.any(False):
            raise ElsewhereError("another process of this run stopped it")

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        """Around an exchange with the other processes, any of which may be gone."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise LostProcessError(
                "another process of this run has ended, or did not come within "
                f"{self._timeout_minutes:g} minutes (compute.timeout_minutes): {str(error).strip().splitlines()[-1]}"
            ) from error

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


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in their order, in groups of one type of about ``BUCKET_BYTES``."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        num_bytes = tensor.numel() * tensor.element_size()
        if bucket and (size + num_bytes > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += num_bytes
    if bucket:
        yield bucket


@dataclass(frozen=True)
class Runtime:
    """What sampling, learning and evaluation of one run share.

    Attributes:
        chunk_size: (image, step) pairs per network call.
        seed: key of the run's randomness.
    """

    processes: Processes
    meter: Meter
    chunk_size: int
    seed: int
