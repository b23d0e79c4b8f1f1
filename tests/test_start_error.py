"""Ratios that rounding alone moves stop a run in its first epoch; algorithms say themselves whether that matters."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rfbench.core.learner import Learner
from rfbench.errors import InputError
from rfbench.planning.compatibility import rounding_remark
from rfbench.planning.plan import make_plan
from rfbench.plugins import registry
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.loading import load_suite
from rfbench.testing import conformance
from rfbench_algorithms.ddpo import DDPO

SHORT = ["epochs=2", "evaluation.every=1", "budget.reward_queries_per_epoch=8"]
log_probs = Learner.log_probs


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What training's log-probs are off, as in a low precision; it may be changed."""
    off = {"by": 2e-4}

    def rounded(self: Learner, chunk: object) -> Tensor:
        values = log_probs(self, chunk) + off["by"]  # type: ignore[arg-type]
        self._note_start((values.detach() - chunk.log_probs_old).abs())  # type: ignore[attr-defined]
        return values

    monkeypatch.setattr(Learner, "log_probs", rounded)
    return off


def run(tmp_path: Path, label: str, *overrides: str) -> tuple[Path, list[str]]:
    progress = Quiet()
    group = f"algorithms.{label}.images_per_prompt=4"
    plan = make_plan(load_suite("optimum-gaussian", [*SHORT, group, *overrides]), label, seed=0)
    return train(plan, tmp_path, progress), progress.notes


@pytest.mark.parametrize("label", ["ddpo", "prdp"])
def test_a_start_beyond_a_tenth_of_the_clip_range_stops_the_run(
    label: str, tmp_path: Path, rounding: dict[str, float]
) -> None:
    settings = [f"algorithms.{label}.config.{field}" for field in ("clip_range=1e-3", "updates_per_epoch=2")]
    with pytest.raises(InputError, match=r"2\.0e-04 away .* clip range of 0\.001 .* bears 1\.0e-04 .*above 2\.0e-03"):
        run(tmp_path, label, *settings)
    folder = tmp_path / "optimum-gaussian" / label / "seed-0"
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["epoch"]) == ("failed", 0)
    assert not (folder / "metrics.jsonl").exists()
    rounding["by"] = 5e-5  # bearable
    assert run(tmp_path / "other", label, *settings)[0].is_dir()


def test_the_precision_is_advised_where_it_is_the_cause(tmp_path: Path, rounding: dict[str, float]) -> None:
    settings = ["algorithms.ddpo.config.clip_range=1e-3", "algorithms.ddpo.config.updates_per_epoch=2"]
    with pytest.raises(InputError, match=r"rounding in tf32 .* --set compute.precision=fp32, or a clip range above"):
        run(tmp_path, "ddpo", *settings, "compute.precision=tf32")


@pytest.mark.parametrize(
    ("label", "overrides"),
    [
        ("ddpo", ["config.clip_range=1e-3", "config.updates_per_epoch=1"]),
        ("prdp", ["config.clip_range=1e-3", "config.updates_per_epoch=1"]),
        ("prdp", ["config.clip_range='off'", "config.updates_per_epoch=2"]),
    ],
)
def test_one_update_or_no_clip_bears_any_start(
    label: str, overrides: list[str], tmp_path: Path, rounding: dict[str, float]
) -> None:
    folder, _ = run(tmp_path, label, *(f"algorithms.{label}.{override}" for override in overrides))
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_a_later_epoch_is_remarked_on(
    tmp_path: Path, rounding: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Learner.begin

    def later(self: Learner, rollout: object) -> None:
        rounding["by"] = 2e-4 * rollout.epoch  # type: ignore[attr-defined]
        begin(self, rollout)  # type: ignore[arg-type]

    monkeypatch.setattr(Learner, "begin", later)
    settings = ["algorithms.ddpo.config.clip_range=1e-3", "algorithms.ddpo.config.updates_per_epoch=2"]
    _, notes = run(tmp_path, "ddpo", *settings)
    assert [note for note in notes if note.startswith("epoch 2: before the first update a log-prob is already 2.0e-04")]


class Unclipped(DDPO):
    """Bears some rounding, and clips nothing."""

    clip_range = None
    largest_start_error = 1e-4


class Tolerant(DDPO):
    """Bears half of its clip range."""

    largest_start_error = property(lambda self: 0.5 * self.clip_range)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("kind", "precision", "message"),
    [
        (Unclipped, "tf32", r"; own bears 1\.0e-04 at most, .* with --set compute\.precision=fp32$"),
        (Unclipped, "fp32", r"; own bears 1\.0e-04 at most, .* largest_start_error is above 2\.0e-04$"),
        (Tolerant, "fp32", r"range of 0\.0001 own bears 5\.0e-05 at most, .* with a clip range above 4\.0e-04$"),
    ],
)
def test_what_an_algorithm_bears_is_its_own_answer(
    kind: type[DDPO], precision: str, message: str, tmp_path: Path, rounding: dict[str, float]
) -> None:
    registry.register("algorithms", "own", kind)
    with pytest.raises(InputError) as raised:
        run(tmp_path, "own", f"compute.precision={precision}")
    assert re.search(message, str(raised.value).splitlines()[0])


def test_a_later_epoch_is_not_remarked_on_where_any_start_will_do(tmp_path: Path, rounding: dict[str, float]) -> None:
    """One update starts where its images were sampled, whatever the rounding."""
    settings = ["algorithms.ddpo.config.clip_range=1e-3", "algorithms.ddpo.config.updates_per_epoch=1"]
    _, notes = run(tmp_path, "ddpo", *settings)
    assert not [note for note in notes if "before the first update" in note]


class Own(DDPO):
    """Computes its log-probs itself, and compares them with nothing."""

    def update(self, rollout: object, learner: Learner) -> dict[str, float]:
        weights = next(iter(learner.policy.trainable().values()))
        learner.backward((weights * torch.ones_like(weights)).sum())
        learner.step()
        return {}


@pytest.mark.slow
def test_the_conformance_suite_does_not_pass_what_compares_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register("algorithms", "own", Own)
    settings = ["algorithms.own.images_per_prompt=4", "budget.reward_queries_per_epoch=8"]
    with pytest.raises(AssertionError, match=r"no log-prob was compared with its sampled value; .*learner\.predict"):
        conformance.ratio_starts_at_one("own", tmp_path, settings)
    conformance.ratio_starts_at_one("rwr", tmp_path, ["algorithms.rwr.images_per_prompt=4", *settings[1:]])


@pytest.mark.parametrize(
    ("label", "config", "precision", "dimensions", "remark"),
    [
        (
            "ddpo",
            {"clip_range": 3e-4, "updates_per_epoch": 4},
            "bf16",
            256,
            "by about 1.0e-03, beside ddpo's clip",
        ),
        (
            "ddpo",
            {"clip_range": 3e-4, "updates_per_epoch": 4},
            "fp16",
            256,
            "by about 1.3e-04, .* range of 0.0003",
        ),
        ("ddpo", {"clip_range": 1e-4, "updates_per_epoch": 4}, "fp16", 16_384, "by about 1.6e-05, .*precision=fp32"),
        ("ddpo", {"clip_range": 3e-4, "updates_per_epoch": 4}, "fp16", 16_384, None),
        ("ddpo", {"clip_range": 3e-4, "updates_per_epoch": 4}, "fp32", 256, None),
        ("ddpo", {"clip_range": 3e-4, "updates_per_epoch": 1}, "bf16", 256, None),
        ("prdp", {"clip_range": 1e-3, "updates_per_epoch": 1}, "bf16", 256, None),
        ("prdp", {"clip_range": 1e-3, "updates_per_epoch": 2}, "bf16", 256, "rounding decides part of what is clipped"),
        ("prdp", {"clip_range": "off", "updates_per_epoch": 2}, "bf16", 256, None),
        ("crd", {}, "bf16", 256, None),
    ],
)
def test_a_precision_that_clips_by_itself_is_told(
    label: str, config: dict[str, object], precision: str, dimensions: int, remark: str | None
) -> None:
    """Before the first epoch, and only where a step compares log-probs of two policies."""
    cls = registry.find("algorithms", label)
    found = rounding_remark(cls(cls.Config(**config)), label, precision, dimensions)
    assert found is None if remark is None else re.search(remark, found or ""), found


def test_a_run_begins_with_the_remark(tmp_path: Path) -> None:
    notes = run(tmp_path, "ddpo", "compute.precision=bf16", "algorithms.ddpo.config.updates_per_epoch=2")[1]
    assert any("use --set compute.precision=fp32" in note for note in notes)
    assert not run(tmp_path / "other", "ddpo", "algorithms.ddpo.config.updates_per_epoch=2")[1]
