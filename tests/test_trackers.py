"""TensorBoard and Weights & Biases: the numbers of the records, each once, and a run that does not notice them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rfbench.errors import InputError
from rfbench.planning import plan
from rfbench.planning.suite_components import suite_components
from rfbench.running import checkpoint
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Suite
from tests.runs import assert_same_run, run

# A stand-in for the package: what is logged goes to a file as JSON lines.
WANDB = """
import json
class Run:
    def __init__(self, folder):
        self.file = open(folder / "logged.jsonl", "w")
    def log(self, values, step):
        self.file.write(json.dumps([step, values]) + "\\n")
    def finish(self):
        self.file.close()
def init(project, name, config, dir, mode, settings):
    if mode == "online":
        raise RuntimeError("no API key")
    assert (project, config["variant"], config["suite"]["name"]) == ("rfbench", "prdp", name.split("/")[0])
    return Run(dir)
"""


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path / "packages")


def tracked(suite: Suite, **trackers: Any) -> Suite:
    return Suite.model_validate(suite.model_dump() | {"compute": suite.compute.model_dump() | {"trackers": trackers}})


def recorded(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every number of the records: name -> (epoch, value)."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for name, value in record.items():
            if name != "epoch" and value is not None:
                curves.setdefault(f"metrics/{name}", []).append((record["epoch"], value))
    for line in (folder / "evals.jsonl").read_text().splitlines():
        record = json.loads(line)
        curves.setdefault(f"{record['evaluation_set']}/{record['measure']}", []).append(
            (record["epoch"], record["mean"])
        )
    return curves


def tensorboard_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    (file,) = (folder / "trackers" / "tensorboard").iterdir()
    events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def single(curves: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    """The values as TensorBoard keeps them: in single precision."""
    return {name: [(epoch, float(np.float32(value))) for epoch, value in curve] for name, curve in curves.items()}


def test_tensorboard_holds_the_records_and_the_run_is_the_same(
    suite: Suite, tmp_path: Path, whole: Callable[[str], Path]
) -> None:
    folder = run(tracked(suite, tensorboard=True), tmp_path / "tracked")
    curves = tensorboard_curves(folder)
    assert curves == single(recorded(folder))
    assert [epoch for epoch, _ in curves["metrics/reward_mean"]] == [1, 2, 3]
    assert [epoch for epoch, _ in curves["seen/kl"]] == [0, 2, 3]
    assert_same_run(folder, whole("prdp"))
    assert not (tmp_path / "plain" / "tiny" / "prdp" / "seed-0" / "trackers").exists()


def test_a_resumed_run_holds_every_number_once(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: None
) -> None:
    saves = 0

    def fail(*arguments: Any) -> None:
        nonlocal saves
        saves += 1
        if saves == 3:
            raise OSError("the disk is full")
        save(*arguments)

    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", fail)
    with pytest.raises(OSError, match="the disk is full"):
        run(tracked(suite, tensorboard=True), tmp_path)  # epoch 2 is recorded, but not in a checkpoint
    folder = run(tracked(suite, tensorboard=True, wandb="offline"), tmp_path, resume=True)
    assert tensorboard_curves(folder) == single(recorded(folder))
    lines = [json.loads(line) for line in (folder / "trackers" / "logged.jsonl").read_text().splitlines()]
    steps = [step for step, _ in lines]
    assert steps == sorted(steps)  # Weights & Biases drops steps that go back
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, values in lines:
        for name, value in values.items():
            curves.setdefault(name, []).append((step, value))
    assert curves == recorded(folder)


def test_an_overwritten_run_leaves_no_old_tracker(suite: Suite, tmp_path: Path) -> None:
    short = suite.model_copy(update={"epochs": 1})
    folder = run(tracked(short, tensorboard=True), tmp_path)
    run(short, tmp_path, overwrite=True)
    assert not (folder / "trackers").exists()


@pytest.mark.parametrize(("package", "setting"), [("tensorboard", True), ("wandb", "offline")])
def test_a_missing_package_is_said_before_anything_loads(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, setting: Any
) -> None:
    monkeypatch.setattr(plan, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"{package} is not installed; `pip install 'rfbench\[track\]'`"):
        run(tracked(suite, **{package: setting}), tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_tracker_that_cannot_start_says_how_to_go_on(suite: Suite, tmp_path: Path, wandb: None) -> None:
    with pytest.raises(InputError, match=r"wandb cannot start: no API key; .*compute\.trackers\.wandb=offline"):
        run(tracked(suite, wandb="online"), tmp_path)
    assert not (tmp_path / "tiny" / "prdp" / "seed-0" / "run.json").exists()
    folder = run(suite.model_copy(update={"epochs": 1}), tmp_path)
    before = (folder / "run.json").read_bytes()
    with pytest.raises(InputError, match="wandb cannot start"):
        run(tracked(suite, wandb="online"), tmp_path, overwrite=True)
    assert (folder / "run.json").read_bytes() == before


def test_trackers_are_no_part_of_the_suites_hash(suite: Suite) -> None:
    on = tracked(suite, tensorboard=True, wandb="online")
    assert suite_components(on).suite_hash == suite_components(suite).suite_hash


@pytest.mark.parametrize(
    ("working", "failing"),
    [
        (
            "self.file.write(json",
            "if step == 2: raise BrokenPipeError(32, 'Broken pipe')\n        self.file.write(json",
        ),
        pytest.param("self.file.close()", "raise TimeoutError('the server did not answer')", marks=pytest.mark.slow),
        pytest.param(
            "def log(self, values, step):",
            "def log(self, values, step):\n        raise OSError(28, 'No space left')",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_tracker_that_fails_costs_no_run(
    suite: Suite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    working: str,
    failing: str,
    whole: Callable[[str], Path],
) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text(WANDB.replace(working, failing))
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    progress = Quiet()
    folder = train(plan.make_plan(tracked(suite, wandb="offline"), "prdp", 0), tmp_path / "tracked", progress)
    assert len([note for note in progress.notes if "the tracker wandb failed" in note]) == 1
    assert_same_run(folder, whole("prdp"))
