"""Out of memory, and out of disk: what the user is told, and what is left."""

from __future__ import annotations

import errno
import gc
import json
import resource
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rfbench import plugins
from rfbench.errors import ExhaustedError
from rfbench.rewards.jpeg import JpegConfig, JpegIncompressibility
from rfbench.running.checkpoint import load_latest
from rfbench.running.failures import explain
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Suite
from tests import tiny
from tests.forked import exit_code_of
from tests.runs import owner

OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 15.77 GiB"


class Greedy(JpegIncompressibility):
    """Runs out of memory as a GPU does, at its n-th call."""

    calls_left = 0

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        Greedy.calls_left -= 1
        if Greedy.calls_left == 0:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)
        return super().__call__(images, prompts)


class Enormous(JpegIncompressibility):
    """A reward model that no GPU holds."""

    def __init__(self, config: JpegConfig, device: torch.device) -> None:
        raise torch.OutOfMemoryError(OUT_OF_MEMORY)


def test_out_of_memory_while_loading_names_the_settings_too(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.register("rewards", "enormous", Enormous)
    evaluation = suite.evaluation.model_copy(update={"held_out_rewards": ()})
    enormous = Suite.model_validate(suite.model_dump() | {"reward": {"name": "enormous"}, "evaluation": evaluation})
    with pytest.raises(ExhaustedError, match="out of GPU memory while model and rewards were loaded") as raised:
        train(tiny.plan(enormous), tmp_path, Quiet())
    assert "--set finetune.method=lora" in str(raised.value)


def test_a_run_that_cannot_begin_removes_no_earlier_one(suite: Suite, tmp_path: Path) -> None:
    plugins.register("rewards", "enormous", Enormous)
    evaluation = suite.evaluation.model_copy(update={"held_out_rewards": ()})
    short = Suite.model_validate(suite.model_dump() | {"epochs": 1, "evaluation": evaluation})
    folder = train(tiny.plan(short), tmp_path, Quiet())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    enormous = Suite.model_validate(short.model_dump() | {"reward": {"name": "enormous"}})
    with pytest.raises(ExhaustedError, match="while model and rewards were loaded"):
        train(tiny.plan(enormous), tmp_path, Quiet(), overwrite=True)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_out_of_memory_names_the_settings_and_resumes_with_them(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.register("rewards", "greedy", Greedy)
    evaluation = suite.evaluation.model_copy(update={"every": 3, "held_out_rewards": ()})
    compute = suite.compute.model_copy(update={"chunk_size": 8})
    changes = {"reward": {"name": "greedy"}, "evaluation": evaluation, "compute": compute}
    greedy = Suite.model_validate(suite.model_dump() | changes)
    Greedy.calls_left = 5  # evaluation: 1 chunk; each epoch: 2 chunks
    with pytest.raises(ExhaustedError) as raised:
        train(tiny.plan(greedy, "ddpo"), tmp_path, Quiet())
    message = str(raised.value)
    del raised  # its frames hold the folder's lock
    gc.collect()
    assert "out of GPU memory in epoch 2: CUDA out of memory. " not in message  # the first sentence alone
    assert "out of GPU memory in epoch 2: CUDA out of memory; " in message
    assert "GiB were allocated at most" in message
    for setting in ("chunk_size=4", "decode_chunk_size=4", "gradient_checkpointing=true", "precision=bf16"):
        assert f"--set compute.{setting} " in message
    assert "--set finetune.method=lora" in message
    folder = tmp_path / "tiny" / "ddpo" / "seed-0"
    run = json.loads((folder / "run.json").read_text())
    assert (run["status"], run["epoch"]) == ("failed", 1)
    assert "chunk_size=4" in run["error"]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1

    smaller = suite.compute.model_copy(update={"chunk_size": 4, "gradient_checkpointing": True})
    train(tiny.plan(greedy.model_copy(update={"compute": smaller}), "ddpo"), tmp_path, Quiet(), resume=True)
    run = json.loads((folder / "run.json").read_text())
    assert (run["status"], run["epoch"], run["suite"]["compute"]["chunk_size"]) == ("finished", 3, 4)


def on_a_full_disk(suite: Suite, out: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, resource.RLIM_INFINITY))
    try:
        train(tiny.plan(suite), out, Quiet())
    except ExhaustedError as error:
        (out / "message").write_text(str(error))


def test_a_full_disk_leaves_the_last_good_checkpoint(suite: Suite, tmp_path: Path) -> None:
    """The optimiser's moments, from epoch 1 on, make the checkpoint's state larger than what a file may grow to."""

    assert exit_code_of(on_a_full_disk, suite, tmp_path) == 0
    message = (tmp_path / "message").read_text()
    assert "state.pt could not be written: " in message
    assert "GB are free there. Make room, and --resume goes on from the last good checkpoint" in message
    folder = tmp_path / "tiny" / "prdp" / "seed-0"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["epoch-000000"]
    kept = load_latest(folder / "checkpoints", torch.device("cpu"), owner(folder))
    assert kept is not None
    assert kept.epoch == 0
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    train(tiny.plan(suite), tmp_path, Quiet(), resume=True)
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_a_record_that_the_disk_does_not_take_is_named(suite: Suite) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/results/metrics.jsonl")
    explained = explain(full, suite, "in epoch 3", 0)
    assert "/results/metrics.jsonl could not be written: [Errno 28] No space left" in str(explained)
    assert explain(OSError(errno.EACCES, "Permission denied"), suite, "in epoch 3", 0) is None
