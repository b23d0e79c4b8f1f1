"""When memory or the disk runs out: what did, how much there was, and which setting to change."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from rfbench.core.meter import Meter
from rfbench.errors import ExhaustedError
from rfbench.suite.suite import Suite

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TORCH_SAVE = ("inline_container", "iostream error")  # what torch.save says where a disk does not take its file


def explain(error: Exception, suite: Suite, when: str, peak_bytes: int) -> ExhaustedError | None:
    """What to do about ``error``, where it says that memory or disk ran out; else None.

    ``when`` is such as "in epoch 3"; ``peak_bytes`` is the most that was allocated so far.
    """
    if isinstance(error, torch.OutOfMemoryError):
        said = str(error).partition(". ")[0]
        return ExhaustedError(
            f"out of GPU memory {when}: {said}; {peak_bytes / 2**30:.1f} GiB were allocated at most.\n"
            + "\n".join(f"  {line}" for line in _memory_advice(suite))
            + "\nThe first that helps can be given to --resume; what changes the experiment needs --overwrite."
        )
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return _disk_error(Path(error.filename) if error.filename else None, error)
    return None


@contextmanager
def loading(suite: Suite, meter: Meter) -> Iterator[None]:
    """Around the loading of model and rewards, with the same advice where memory runs out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        explained = explain(error, suite, "while model and rewards were loaded", meter.peak_memory_bytes())
        assert explained is not None
        raise explained from error


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Around the writing of files into ``folder``, inside of ``whole_folder``, which removes what is there of them.

    Where the disk does not take them, an ``ExhaustedError`` names the file that failed.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno not in DISK_FULL:
            raise
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in TORCH_SAVE):
            raise
        written = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime)
        failed = written[-1] if written else folder
        raise _disk_error(failed, error) from error


def _memory_advice(suite: Suite) -> list[str]:
    """Settings that lower the peak, the least costly first."""
    compute, advice = suite.compute, []
    if compute.pairs_per_call > 1:
        half = compute.pairs_per_call // 2
        advice.append(f"--set compute.chunk_size={half}  (half of now; the same results to float tolerance)")
    decoded = compute.decode_chunk_size or compute.pairs_per_call
    if decoded > 1:
        advice.append(f"--set compute.decode_chunk_size={decoded // 2}  (if it was while decoding)")
    if not compute.gradient_checkpointing:
        advice.append("--set compute.gradient_checkpointing=true  (a third more time in the update)")
    if compute.precision == "fp32":
        advice.append("--set compute.precision=bf16  (another experiment: rounding)")
    if suite.finetune.method == "full":
        advice.append("--set finetune.method=lora  (another experiment: no frozen copy, no moments of all weights)")
    return advice or ["nothing is left to lower: a GPU with more memory is needed"]


def _disk_error(path: Path | None, error: Exception) -> ExhaustedError:
    said = f"{path or 'a file'} could not be written: {error}"
    if path and path.parent.exists():
        said += f"; {shutil.disk_usage(path.parent).free / 1e9:.2f} GB are free there"
    return ExhaustedError(f"{said}. Make room, and --resume goes on from the last good checkpoint")
