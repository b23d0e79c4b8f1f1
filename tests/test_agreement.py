"""Processes of one run: they sum gradients in few messages, agree on what they go on from, and end together."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.core import processes as processes_module
from rfbench.core.processes import Processes
from rfbench.errors import InputError
from rfbench.rewards.jpeg import JpegIncompressibility
from rfbench.running.folder import RunFolder, run_path
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Compute, Suite
from tests import tiny
from tests.forked import on_processes

pytestmark = pytest.mark.slow


def sums(rank: int) -> tuple[bool, int]:
    """Whether sums in buckets of 100 numbers are those of each tensor alone, and in how many messages they came."""
    processes_module.BUCKET_BYTES = 4 * 100
    group = Processes(Compute(device="cpu"))
    draw = torch.Generator().manual_seed(rank)
    tensors = [torch.randn(shape, generator=draw) for shape in [(3, 5), (70,), (2, 2, 2), (300,), (), (9, 9), (1,)]]
    tensors.append(torch.randn(4, 4, generator=draw).double())
    one_by_one = [group.sum(tensor.clone()) for tensor in tensors]
    calls = []
    reduce = group._accelerator.reduce
    group._accelerator.reduce = lambda *a, **k: calls.append(1) or reduce(*a, **k)
    group.sum_in_place(tensors)
    return all(map(torch.equal, tensors, one_by_one)), len(calls)


def test_gradients_summed_in_buckets_are_those_summed_one_by_one() -> None:
    """Bit for bit between two processes; and in fewer messages than there are tensors."""
    assert on_processes(2, sums) == [("returned", (True, 4))] * 2


def test_on_one_process_nothing_is_touched() -> None:
    tensor = torch.randn(5)
    before = tensor.clone()
    Processes(Compute(device="cpu")).sum_in_place([tensor])
    assert torch.equal(tensor, before)


def met(rank: int) -> None:
    if rank:
        Processes(Compute(device="cpu", timeout_minutes=0.05))


def test_a_process_whose_others_never_came_says_so() -> None:
    """One may be killed before the processes have met; the others then wait for nobody."""
    _, (kind, message) = on_processes(2, met)
    assert kind == "LostProcessError"
    assert "did not come within 0.05 minutes (compute.timeout_minutes)" in message


def trained(rank: int, suite: Suite, out: Path) -> str:
    return str(train(tiny.plan(suite), out, Quiet()))


def resumed_apart(rank: int, suite: Suite, tmp_path: Path) -> None:
    train(tiny.plan(suite), tmp_path / str(rank), Quiet(), resume=True)


def test_processes_that_see_different_checkpoints_stop_with_one_line(suite: Suite, tmp_path: Path) -> None:
    """As on two machines whose results folder is not shared."""
    suite = suite.model_copy(update={"epochs": 2})

    folder = Path(on_processes(2, trained, suite, tmp_path / "0")[0][1])  # type: ignore[index]
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    record = json.loads((folder / "run.json").read_text()) | {"status": "interrupted"}
    for root in ("0", "1"):
        (tmp_path / root / "tiny" / "prdp" / "seed-0" / "run.json").write_text(json.dumps(record))
    shutil.rmtree(tmp_path / "1" / "tiny" / "prdp" / "seed-0" / "checkpoints")

    (name, said), (other, _) = on_processes(2, resumed_apart, suite, tmp_path)  # type: ignore[misc]
    assert (name, other) == ("InputError", "ElsewhereError")  # the second prints nothing
    assert "process 0: epoch 2; process 1: none" in said
    assert (folder / "checkpoints" / "epoch-000002").is_dir()


def test_a_folder_that_is_taken_ends_every_process(suite: Suite, tmp_path: Path) -> None:
    taken = RunFolder(run_path(tmp_path, "tiny", "prdp", 0))
    (name, said), (other, _) = on_processes(2, trained, suite, tmp_path)  # type: ignore[misc]
    assert (name, other) == ("InputError", "ElsewhereError")
    assert f"{taken.path} is being written by another process" in said


def spoiled(rank: int, suite: Suite, out: Path) -> None:
    """A run whose rewards are NaN on its second process."""
    score = JpegIncompressibility.__call__

    def nan_on_the_second(self: Any, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return score(self, images, prompts) * (float("nan") if rank else 1.0)

    JpegIncompressibility.__call__ = nan_on_the_second  # type: ignore[method-assign]
    train(tiny.plan(suite), out, Quiet())


def test_what_fails_on_the_second_process_is_recorded(suite: Suite, tmp_path: Path) -> None:
    first, second = on_processes(2, spoiled, suite, tmp_path)
    assert second is not None
    assert second[0] == "NonFiniteError"
    assert first is not None
    assert first[0] == "LostProcessError"
    record = json.loads((tmp_path / "tiny" / "prdp" / "seed-0" / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["error"].startswith("process 1: ")
    assert record["error"].splitlines()[0].removeprefix("process 1: ") in second[1]


class Hanging(Quiet):
    def on_epoch(self, record: Any) -> None:
        time.sleep(30)
        os._exit(1)  # torchrun, or the cluster, ends it


def hanging(rank: int, suite: Suite, out: Path) -> None:
    train(tiny.plan(suite), out, Hanging() if rank else Quiet())


def test_a_process_that_hangs_ends_the_run_within_the_time_that_is_set(suite: Suite, tmp_path: Path) -> None:
    compute = suite.compute.model_copy(update={"timeout_minutes": 0.1})
    suite = suite.model_copy(update={"compute": compute})
    first, second = on_processes(2, hanging, suite, tmp_path)
    assert second is None
    assert first is not None
    assert first[0] == "LostProcessError"
    record = json.loads((tmp_path / "tiny" / "prdp" / "seed-0" / "run.json").read_text())
    assert record["status"] == "failed"
    assert "did not come within 0.1 minutes (compute.timeout_minutes)" in record["error"]
    assert list((tmp_path / "tiny" / "prdp" / "seed-0" / "checkpoints").iterdir())


def encoded(rank: int, suite: Suite) -> list[str]:
    """The prompts that this process encoded for an epoch."""
    run = tiny.make_run(tiny.plan(suite))
    encode, seen = run.policy.encode_prompts, []

    class Noted:
        empty = encode.empty

        def __call__(self, prompts: list[str]) -> Any:
            seen.extend(prompts)
            return encode(prompts)

    run.policy.encode_prompts = Noted()  # type: ignore[assignment]
    rollout = run.rollout(0)
    assert set(seen) <= set(rollout.prompts)
    return [prompt for prompt in rollout.prompts if prompt in seen]


def test_a_process_encodes_its_own_prompts_alone(suite: Suite) -> None:
    alone = encoded(0, suite)
    (_, first), (_, second) = on_processes(2, encoded, suite)  # type: ignore[misc]
    assert len(alone) == 3
    assert sorted([*first, *second]) == sorted(alone)


def test_a_taken_lock_and_a_file_system_without_locks_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, said in (
        (errno.EWOULDBLOCK, "is being written by another process"),
        (errno.ENOSYS, "is on a file system that gives no file locks"),  # Lustre without flock
        (errno.ENOLCK, "is on a file system that gives no file locks"),  # NFS without its lock service
        (errno.EOPNOTSUPP, "is on a file system that gives no file locks"),
    ):

        def refuse(file: int, operation: int, number: int = number) -> None:
            raise OSError(number, "no")

        monkeypatch.setattr(fcntl, "flock", refuse)
        with pytest.raises(InputError, match=said):
            RunFolder(tmp_path / str(number))
