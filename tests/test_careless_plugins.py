"""Plugins that end the process, keep what cannot be loaded, clash, or change what rfbench counts and judges."""

from __future__ import annotations

import json
import os
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rfbench.core.algorithm import Algorithm, Cost, check_metrics
from rfbench.core.learner import Learner
from rfbench.core.reward import begin, score
from rfbench.core.rollout import Rollout
from rfbench.errors import InputError, InterfaceError, NonFiniteError
from rfbench.planning.plan import make_plan
from rfbench.plugins import registry
from rfbench.records.format import RESERVED
from rfbench.running.plain_state import require_plain
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.loading import load_suite
from rfbench.sweeps.jobs import make_jobs
from rfbench.sweeps.local import Lane, Local
from tests.test_cli import rfbench

SHORT = [
    "epochs=3",
    "evaluation.every=1",
    "budget.reward_queries_per_epoch=8",
    "algorithms.mine.images_per_prompt=4",
]


class Mine(Algorithm):
    """A policy gradient that calls ``harm`` in the second epoch."""

    metrics: dict[str, Any] = {}  # noqa: RUF012
    state: dict[str, Any] = {}  # noqa: RUF012

    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        pairs = num_prompts * images_per_prompt * num_steps
        return Cost(pairs, pairs)

    def harm(self, rollout: Rollout, learner: Learner) -> None:
        """Nothing."""

    def update(self, rollout: Rollout, learner: Learner) -> dict[str, float]:
        advantages = rollout.rewards - rollout.rewards.mean()
        for chunk in learner.chunks(rollout):
            learner.backward(-(advantages[chunk.images] * learner.log_probs(chunk)).sum())
        learner.step()
        if rollout.epoch == 1:
            self.harm(rollout, learner)
        return self.metrics

    def state_dict(self) -> dict[str, Any]:
        return self.state


def run_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **parts: Any) -> dict[str, Any]:
    """Trains a ``Mine`` with these members, which must raise; the record that it leaves."""
    monkeypatch.setitem(registry._registered["algorithms"], "mine", type("Mine", (Mine,), parts))
    train(make_plan(load_suite("optimum-gaussian", SHORT), "mine", seed=0), tmp_path, Quiet())
    return _record(tmp_path)


def _record(root: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((root / "optimum-gaussian" / "mine" / "seed-0" / "run.json").read_text())
    return record


def _change_rewards(self: Mine, rollout: Rollout, learner: Learner) -> None:
    rollout.rewards.mul_(100)


def _change_rewards_through_an_array(self: Mine, rollout: Rollout, learner: Learner) -> None:
    rewards = rollout.rewards.numpy()
    rewards -= rewards.mean()


def _sort_rewards_through_an_array(self: Mine, rollout: Rollout, learner: Learner) -> None:
    rollout.rewards.numpy().sort()  # the same sum


def _change_log_probs_past_the_count_of_writes(self: Mine, rollout: Rollout, learner: Learner) -> None:
    rollout.log_probs.data.mul_(2)


def _replace_log_probs(self: Mine, rollout: Rollout, learner: Learner) -> None:
    rollout.log_probs = rollout.log_probs + 1


def _change_reference(self: Mine, rollout: Rollout, learner: Learner) -> None:
    frozen = learner.policy.frozen_copy
    assert frozen is not None
    next(frozen.parameters()).data.add_(0.1)


@pytest.mark.parametrize("bases", ["AsyncReward, HeadedReward", "HeadedReward, AsyncReward"])
def test_a_reward_whose_heads_would_be_lost_is_refused_when_it_is_read(tmp_path: Path, bases: str) -> None:
    plugin = tmp_path / "both.py"
    plugin.write_text(
        f"from rfbench.core.reward import AsyncReward, HeadedReward\n\nclass Both({bases}):\n    'Of both kinds.'\n"
    )
    with pytest.raises(InputError, match=r"both\.py line 3 .* Both is an AsyncReward and a HeadedReward, but"):
        registry.add_file(plugin)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_change_rewards, "'mine' changed rollout.rewards in its update at epoch 2"),
        (_change_rewards_through_an_array, "'mine' changed rollout.rewards in its update at epoch 2"),
        (_sort_rewards_through_an_array, "'mine' changed rollout.rewards in its update at epoch 2"),
        (_change_log_probs_past_the_count_of_writes, "'mine' changed rollout.log_probs in its update at epoch 2"),
        (_replace_log_probs, "'mine' changed rollout.log_probs in its update at epoch 2"),
        (_change_reference, "'mine' changed the frozen reference before epoch 2 ended"),
    ],
)
def test_what_an_algorithm_must_not_change(
    harm: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InterfaceError, match=message):
        run_mine(tmp_path, monkeypatch, harm=harm)
    assert _record(tmp_path)["status"] == "failed"


def test_an_algorithm_that_changes_none_of_it_finishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_mine(tmp_path, monkeypatch, metrics={"mine": 1.0})["status"] == "finished"


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_metrics_cannot_take_the_names_of_rfbenchs_own(name: str) -> None:
    with pytest.raises(InterfaceError, match=f"the metric '{name}': that name is rfbench's own"):
        check_metrics({"loss": 1.0, name: 99.0}, "it")


def test_a_metric_too_large_for_a_float_is_not_finite() -> None:
    with pytest.raises(NonFiniteError, match="'huge'"):
        check_metrics({"huge": 10**400}, "it")


@pytest.mark.parametrize(
    ("state", "where", "kind"),
    [
        ({"a": 1, "seen": np.zeros(3)}, r"state_dict\(\)\['seen'\]", "numpy.ndarray"),
        ({"best": [0.5, np.float64(1.0)]}, r"state_dict\(\)\['best'\]\[1\]", "numpy.float64"),
        ({"deep": {"last": deque([1])}}, r"state_dict\(\)\['deep'\]\['last'\]", "collections.deque"),
        ({"file": Path("x")}, r"state_dict\(\)\['file'\]", "pathlib"),
        ({"call": lambda: 1}, r"state_dict\(\)\['call'\]", "builtins.function"),
    ],
)
def test_state_that_could_never_be_loaded(state: dict[str, Any], where: str, kind: str) -> None:
    with pytest.raises(InterfaceError, match=f"mine: {where} is a {kind}"):
        require_plain(state, "mine")


def test_plain_state_is_left_as_it_is() -> None:
    state = {"t": torch.ones(2), "n": [1, 2.5, None, "x", True], "m": torch.nn.Linear(2, 2).state_dict(), "u": (1, {})}
    assert require_plain(state, "mine") is state


def test_state_is_tried_before_the_run_has_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InterfaceError, match=r"numpy\.ndarray"):
        run_mine(tmp_path, monkeypatch, state={"seen": np.zeros(3)})
    assert not (tmp_path / "optimum-gaussian" / "mine" / "seed-0" / "metrics.jsonl").exists()


def test_state_is_tried_at_every_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def harm(self: Mine, rollout: Rollout, learner: Learner) -> None:
        self.state = {"best": np.float64(1.0)}

    with pytest.raises(InterfaceError, match=r"'best'\] is a numpy.float64"):
        run_mine(tmp_path, monkeypatch, harm=harm)
    assert _record(tmp_path)["status"] == "failed"


def test_sys_exit_in_an_update_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def harm(self: Mine, rollout: Rollout, learner: Learner) -> None:
        raise SystemExit(0)

    with pytest.raises(InterfaceError, match=r"sys.exit\(0\) in epoch 2"):
        run_mine(tmp_path, monkeypatch, harm=harm)
    assert _record(tmp_path)["status"] == "failed"
    assert "sys.exit(0)" in _record(tmp_path)["error"]


EXITS = """
import os
from rfbench.core import Reward

class Leaves(Reward):
    "Ends its process."

    unit, version, calls = "1", "1", 0

    def __init__(self, config, device):
        pass

    def __call__(self, images, prompts):
        self.calls += 1
        if self.calls > 3:
            os._exit(0)
        return images.flatten(1).sum(1)
"""


def test_a_sweep_asks_the_folder_whether_a_run_is_finished(tmp_path: Path) -> None:
    file = tmp_path / "leaves.py"
    file.write_text(EXITS)
    registry.add_file(file)
    overrides = [*SHORT[:3], "algorithms.ddpo.images_per_prompt=4", "reward.name=leaves"]
    overrides += ["algorithms.ddpo.config.updates_per_epoch=1"]
    jobs = make_jobs(["optimum-gaussian"], ["ddpo"], [0], tmp_path / "out", overrides=overrides, plugins=[file])
    (outcome,) = Local([Lane(1)]).run(jobs, lambda _: None)
    assert outcome.error is not None
    assert "ended with code 0 before the run was finished" in outcome.error


@pytest.mark.parametrize("code", ["import sys; sys.exit(0)", "raise SystemExit('bye')"])
def test_sys_exit_at_a_plugins_import(code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "leaves.py"
    file.write_text(code)
    assert rfbench("list", "algorithms", "--plugin", file) == 2
    assert "cannot be imported: SystemExit" in " ".join(capsys.readouterr().err.split())


class Blackens:
    """A reward that changes what it scores."""

    unit = version = "1"

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        images.zero_()
        return torch.zeros(len(images))


@pytest.mark.parametrize("call", [score, lambda *a: begin(*a)().total])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_reward_that_changes_the_images(call: Any, dtype: torch.dtype) -> None:
    images = torch.ones(2, 3, 4, 4, dtype=dtype)
    with pytest.raises(InterfaceError, match="'dark' changed the images that it scored at epoch 1"):
        call(Blackens(), "dark", images, ["a", "b"], "epoch 1", 0)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_a_score_is_a_real_number(dtype: torch.dtype) -> None:
    with pytest.raises(InterfaceError, match="'odd' returned complex numbers at epoch 1"):
        score(
            lambda images, prompts: torch.ones(2, dtype=dtype), "odd", torch.ones(2, 3, 4, 4), ["a", "b"], "epoch 1", 0
        )  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1e38, -1e17, float("nan"), float("-inf")])
def test_a_score_leaves_room_for_the_spread_of_many(value: float) -> None:
    with pytest.raises(NonFiniteError, match=r"'odd' gave .* at epoch 1 for image 1, prompt 'b'"):
        score(
            lambda images, prompts: torch.tensor([1.0, value]), "odd", torch.ones(2, 3, 4, 4), ["a", "b"], "epoch 1", 0
        )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"rollout_needs": None}, "rollout_needs is None, not a RolloutNeeds"),
        ({"clip_range": "x"}, "clip_range is 'x'; it is a number above 0, or None"),
        ({"clip_range": float("nan")}, "clip_range is nan; it is a number above 0, or None"),
        ({"largest_start_error": True}, "largest_start_error is True; it is a number above 0, or None"),
        ({"__init__": lambda self: None}, r"Mine is given its config, and its __init__ has too many"),
    ],
)
def test_what_an_algorithm_says_of_itself(
    parts: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._registered["algorithms"], "mine", type("Mine", (Mine,), parts))
    with pytest.raises(InterfaceError, match=message):
        train(make_plan(load_suite("optimum-gaussian", SHORT), "mine", seed=0), tmp_path, Quiet())


def test_a_plugin_may_go_to_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def harm(self: Mine, rollout: Rollout, learner: Learner) -> None:
        os.chdir(tmp_path / "elsewhere")

    monkeypatch.setitem(registry._registered["algorithms"], "mine", type("Mine", (Mine,), {"harm": harm}))
    train(make_plan(load_suite("optimum-gaussian", SHORT), "mine", seed=0), Path("out"), Quiet())
    assert _record(tmp_path / "out")["status"] == "finished"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def _install(distribution: str, value: str, folder: Path) -> None:
    """What pip leaves of a package that brings an algorithm ddpo."""
    info = folder / f"{distribution.replace('-', '_')}-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 9.9\n")
    (info / "entry_points.txt").write_text(f"[rfbench.algorithms]\nddpo = {value}\n")


@pytest.mark.parametrize("other", ["zz-other-ddpo", "aa-other-ddpo"])
def test_two_packages_with_one_name(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(other, "otherddpo:Mine", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert rfbench("run", "ddpo", "--suite", "optimum-gaussian", "--out", tmp_path / "out") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "several installed packages bring the algorithm 'ddpo'" in said
    assert f"{other} 9.9 (otherddpo:Mine)" in said
    assert "(rfbench_algorithms.ddpo:DDPO)" in said
    assert f"pip uninstall {other}" in said
    with pytest.raises(InputError, match="did you mean"):  # the others still work
        registry.find("algorithms", "prpd")
    assert registry.find("algorithms", "prdp")


def test_two_plugin_files_with_one_name(tmp_path: Path) -> None:
    code = EXITS.replace("os._exit(0)", "pass")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(code)
    registry.add_file(tmp_path / "a" / "mine.py")
    registry.add_file(tmp_path / "a" / "mine.py")
    with pytest.raises(InputError, match=r"a/mine.py both define a reward 'leaves'"):
        registry.add_file(tmp_path / "b" / "mine.py")


@pytest.mark.parametrize(
    ("snapshots", "message"),
    [
        ("old", r"snapshots is 'old'; it is a tuple of names"),
        (("policy",), r"'policy' and 'reference' are taken"),
        (("old", "old"), "each needs a name of its own"),
    ],
)
def test_snapshots_without_names_of_their_own_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshots: Any, message: str
) -> None:
    with pytest.raises(InterfaceError, match=message):
        run_mine(tmp_path, monkeypatch, snapshots=snapshots)
    assert list(tmp_path.iterdir()) == []


def _take_another_snapshot(self: Mine, rollout: Rollout, learner: Learner) -> None:
    learner.policy.take_snapshot("extra")


def _predict_with_no_snapshot(self: Mine, rollout: Rollout, learner: Learner) -> None:
    chunk = next(iter(learner.chunks(rollout)))
    learner.policy.step_mean(chunk.latents, chunk.steps, chunk.condition, weights="odl")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_take_another_snapshot, "took the snapshot 'extra', which its `snapshots` do not name"),
        (_predict_with_no_snapshot, "there are no weights 'odl' to predict with, only 'policy', 'reference', 'old'"),
    ],
)
def test_a_snapshot_that_was_not_declared_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Any, message: str
) -> None:
    with pytest.raises(InterfaceError, match=message):
        run_mine(tmp_path, monkeypatch, snapshots=("old",), harm=harm)


def test_a_run_without_an_optimiser_step_says_so(tmp_path: Path) -> None:
    settings = [
        *SHORT[:-1],
        "algorithms.best-of-n.images_per_prompt=8",
        "algorithms.best-of-n.config.epochs_per_round=4",
    ]
    progress = Quiet()
    train(make_plan(load_suite("optimum-gaussian", settings), "best-of-n", seed=0), tmp_path, progress)
    assert "best-of-n took no optimiser step in 3 epochs: its policy is the base model still" in progress.notes
