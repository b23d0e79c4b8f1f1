"""Whole runs on a tiny pipeline: reproducible, undisturbed by evaluation, exactly resumable, and never lost."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.core.learner import Learner
from rfbench.errors import DamagedFileError, InputError, NonFiniteError
from rfbench.report.analysis import paper
from rfbench.rewards.jpeg import JpegIncompressibility
from rfbench.running.checkpoint import load_latest
from rfbench.running.folder import RunFolder
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Budget, Suite
from tests import tiny
from tests.runs import KILLS, assert_same_run, exit_code_of_killed, lines, owner, run, weights


def test_reward_noise_is_the_same_for_any_chunk_size_and_of_the_size_asked_for(suite: Suite) -> None:
    noisy = suite.model_copy(update={"reward_noise": 3.0, "budget": Budget(reward_queries_per_epoch=24)})
    small = noisy.model_copy(update={"compute": suite.compute.model_copy(update={"chunk_size": 5})})
    quiet = noisy.model_copy(update={"reward_noise": None})
    clean = tiny.make_run(tiny.plan(quiet)).rollout(0).rewards
    first, second = (tiny.make_run(tiny.plan(s)).rollout(0).rewards - clean for s in (noisy, small))
    assert torch.allclose(first, second, atol=1e-3)
    assert 1.5 < float(first.std()) < 4.5
    assert len(first.unique()) == 24


@pytest.mark.parametrize(
    "label", ["prdp", *(pytest.param(label, marks=pytest.mark.slow) for label in ("ddpo", "dpok", "rwr"))]
)
def test_two_runs_are_equal(suite: Suite, tmp_path: Path, label: str, whole: Callable[[str], Path]) -> None:
    first, second = run(suite, tmp_path, label), whole(label)
    assert [record["epoch"] for record in lines(first, "metrics")] == [1, 2, 3]
    assert sorted({record["epoch"] for record in lines(first, "evals")}) == [0, 2, 3]
    assert_same_run(first, second)


def test_the_first_evaluation_is_the_same_for_every_algorithm_and_seed(suite: Suite, tmp_path: Path) -> None:
    short = suite.model_copy(update={"epochs": 1})
    first = run(short, tmp_path, "prdp")
    second = train(tiny.plan(short, "ddpo", seed=7), tmp_path, Quiet())
    start = [record for record in lines(first, "evals") if record["epoch"] == 0]
    assert start == [record for record in lines(second, "evals") if record["epoch"] == 0]
    assert {r["measure"]: r["mean"] for r in start}["kl"] == 0


def test_evaluation_does_not_disturb_training(suite: Suite, tmp_path: Path, whole: Callable[[str], Path]) -> None:
    never = suite.model_copy(update={"evaluation": suite.evaluation.model_copy(update={"every": 100})})
    often, rarely = whole("prdp"), run(never, tmp_path)
    assert lines(often, "metrics") == lines(rarely, "metrics")
    assert all(torch.equal(value, weights(rarely)[name]) for name, value in weights(often).items())


STATEFUL = [  # replay, value network and running statistics survive too
    ("in an update", "dpok"),
    ("between the updates of an epoch", "dpok"),
    ("while a checkpoint is written", "dpok"),
    ("between the updates of an epoch", "rwr"),
]


OF_PRDP = [pytest.param(moment, "prdp", marks=pytest.mark.slow) for moment in KILLS if moment != "in an update"]


@pytest.mark.parametrize(
    ("moment", "label"), [("in an update", "prdp"), *((m, "ddpo") for m in KILLS), *STATEFUL, *OF_PRDP]
)
def test_killed_and_resumed_equals_never_stopped(
    suite: Suite, tmp_path: Path, moment: str, label: str, whole: Callable[[str], Path]
) -> None:
    assert exit_code_of_killed(moment, suite, tmp_path / "killed", label) == -signal.SIGKILL
    killed = tmp_path / "killed" / "tiny" / label / "seed-0"
    assert json.loads((killed / "run.json").read_text())["status"] == "running"
    with pytest.raises(InputError, match="--resume goes on with it, --overwrite starts over"):
        run(suite, tmp_path / "killed", label)
    resumed = run(suite, tmp_path / "killed", label, resume=True)
    assert_same_run(resumed, whole(label))
    assert json.loads((resumed / "run.json").read_text())["status"] == "finished"


def test_a_finished_run_is_left_alone(suite: Suite, tmp_path: Path) -> None:
    short = suite.model_copy(update={"epochs": 1})
    folder = run(short, tmp_path)
    content = (folder / "run.json").read_bytes()
    progress = Quiet()
    train(tiny.plan(short), tmp_path, progress)
    assert "finished already" in progress.notes[0]
    assert (folder / "run.json").read_bytes() == content
    run(short, tmp_path, overwrite=True)
    assert len(lines(folder, "metrics")) == 1


def test_the_paper_that_a_suite_repeats_stands_in_its_runs(suite: Suite, tmp_path: Path) -> None:
    short = Suite.model_validate(suite.model_dump() | {"epochs": 1, "paper": {"suite": "small", "reward": "hpsv2"}})
    folder = run(short, tmp_path)
    record = json.loads((folder / "run.json").read_text())
    assert paper.references([RunFolder(folder, writer=False).require_run()]) == {
        "tiny": {"suite": "small", "reward": "hpsv2"}
    }
    assert Suite.model_validate(record["suite"]).paper == short.paper


def test_resume_refuses_other_settings(suite: Suite, tmp_path: Path) -> None:
    short = suite.model_copy(update={"epochs": 1})
    folder = run(short, tmp_path)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    with pytest.raises(InputError, match=r"epochs was 1 and is 5.*--overwrite"):
        run(suite.model_copy(update={"epochs": 5}), tmp_path, resume=True)


def test_two_processes_cannot_write_one_folder(suite: Suite, tmp_path: Path) -> None:
    holder = RunFolder(tmp_path / "tiny" / "prdp" / "seed-0")
    with pytest.raises(InputError, match="is being written by another process"):
        run(suite, tmp_path)
    del holder


def test_a_damaged_checkpoint_is_named_with_its_checksum(tmp_path: Path, whole: Callable[[str], Path]) -> None:
    folder = Path(shutil.copytree(whole("prdp"), tmp_path / "run"))
    (newest,) = (folder / "checkpoints").iterdir()
    path = newest / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        DamagedFileError, match=rf"{path} is damaged: sha256 is [0-9a-f]{{64}}, expected [0-9a-f]{{64}}"
    ):
        load_latest(folder / "checkpoints", torch.device("cpu"), owner(folder))


@pytest.mark.parametrize(
    "fault", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), OSError(5, "I/O error")]
)
def test_a_fault_of_the_machine_is_not_put_on_the_checkpoint(
    whole: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """Else a user would start over, though the checkpoint is whole."""

    def fail(*_: object, **__: object) -> None:
        raise fault

    folder = whole("prdp")
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(fault)) as raised:
        load_latest(folder / "checkpoints", torch.device("cpu"), owner(folder))
    assert raised.value is fault


@pytest.mark.parametrize("field", ["variant", "seed", "suite_hash", "variant_hash"])
def test_a_checkpoint_of_another_run_is_refused(whole: Callable[[str], Path], field: str) -> None:
    folder = whole("prdp")
    ours = owner(folder)
    other = dataclasses.replace(ours, **{field: 7 if field == "seed" else "other"})
    ours_is = re.escape(repr(getattr(ours, field)))
    with pytest.raises(InputError, match=rf"of another run: its {field} is {ours_is}, and this run's is"):
        load_latest(folder / "checkpoints", torch.device("cpu"), other)


@pytest.mark.parametrize("change", [{"epoch": 0}, {"epoch": 99}, {"sha256": {}}, {"seed": 1}])
def test_an_edited_manifest_is_damaged(whole: Callable[[str], Path], tmp_path: Path, change: dict[str, Any]) -> None:
    shutil.copytree(whole("prdp"), tmp_path / "copy")
    (newest,) = (tmp_path / "copy" / "checkpoints").iterdir()
    manifest = json.loads((newest / "manifest.json").read_text())
    (newest / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(DamagedFileError, match=r"manifest.json is damaged: its checksum is"):
        load_latest(tmp_path / "copy" / "checkpoints", torch.device("cpu"), owner(tmp_path / "copy"))


def give_nan_at_third_call(monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    """The training reward's third call gives NaN for one of its images."""
    score, calls = JpegIncompressibility.__call__, 0

    def broken(self: JpegIncompressibility, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        nonlocal calls
        calls += type(self) is JpegIncompressibility
        scores = score(self, images, prompts)
        return scores.index_fill(0, torch.tensor([row]), float("nan")) if calls == 3 else scores

    monkeypatch.setattr(JpegIncompressibility, "__call__", broken)


def test_nan_reward_stops_the_run_and_keeps_the_last_good_checkpoint(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Callable[[str], Path]
) -> None:
    score = JpegIncompressibility.__call__
    give_nan_at_third_call(monkeypatch, row=9)  # after an evaluation and an epoch of one chunk each
    with pytest.raises(NonFiniteError, match=r"(?s)gave nan at epoch 2 for image 9, prompt 'a.*last good check"):
        run(suite, tmp_path)
    folder = tmp_path / "tiny" / "prdp" / "seed-0"
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["epoch"]) == ("failed", 1)
    assert "epoch 2" in record["error"]
    assert [r["epoch"] for r in lines(folder, "metrics")] == [1]
    saved = load_latest(folder / "checkpoints", torch.device("cpu"), owner(folder))
    assert saved is not None
    assert saved.epoch == 1
    monkeypatch.setattr(JpegIncompressibility, "__call__", score)
    assert_same_run(run(suite, tmp_path, resume=True), whole("prdp"))


def test_a_nan_of_a_later_chunk_is_put_on_its_image(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_nan_at_third_call(monkeypatch, row=1)  # after an evaluation and an epoch's first chunk
    in_eights = suite.model_copy(update={"compute": suite.compute.model_copy(update={"chunk_size": 8})})
    with pytest.raises(NonFiniteError, match="gave nan at epoch 1 for image 9, prompt 'a"):
        run(in_eights, tmp_path)


def test_a_gradient_that_is_not_finite_stops_the_run(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = Learner.backward
    monkeypatch.setattr(Learner, "backward", lambda self, loss: backward(self, loss * float("inf")))
    with pytest.raises(NonFiniteError, match=r"the loss is -?(inf|nan) at epoch 1, among the prompts 'a"):
        run(suite, tmp_path)


def test_interruption_leaves_a_resumable_folder(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Callable[[str], Path]
) -> None:
    step = Learner.step

    def interrupted(self: Learner) -> None:
        monkeypatch.setattr(Learner, "step", step)
        os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    monkeypatch.setattr(Learner, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(suite, tmp_path)
    folder = tmp_path / "tiny" / "prdp" / "seed-0"
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert_same_run(run(suite, tmp_path, resume=True), whole("prdp"))
