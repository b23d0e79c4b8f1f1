"""Plugins: in a file for a quick try, broken, or not keeping to the interface."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from rfbench.core.algorithm import Algorithm, Cost
from rfbench.core.learner import Learner
from rfbench.core.rollout import Rollout
from rfbench.errors import InputError, InterfaceError, NonFiniteError
from rfbench.plugins import registry
from rfbench.suite.suite import Suite
from tests import tiny
from tests.commands import rfbench

MINE = '''
from rfbench.core.algorithm import Algorithm, Cost
from rfbench.core.reward import Reward


class PushUp(Algorithm):
    """Raises every log-prob."""

    def cost(self, num_prompts, images_per_prompt, num_steps):
        pairs = num_prompts * images_per_prompt * num_steps
        return Cost(pairs, pairs)

    def update(self, rollout, learner):
        for chunk in learner.chunks(rollout):
            learner.backward(-learner.log_probs(chunk).sum() / rollout.log_probs.numel())
        learner.step()
        return {}


class BrightReward(Reward):
    """Mean brightness."""

    unit, version = "share of white", "1"

    def __init__(self, config, device):
        pass

    def __call__(self, images, prompts):
        return images.float().flatten(1).mean(1) / 255
'''


def test_a_file_brings_its_plugins(suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(MINE)
    assert rfbench("list", "rewards", "--plugin", mine) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "bright-reward Mean brightness." in printed
    assert "shapes-gold" in printed
    arguments = ["--suite", suite_file, "--out", tmp_path, "--set", "reward.name=bright-reward", "--plugin", mine]
    assert rfbench("run", "push-up", *arguments) == 0
    record = json.loads((tmp_path / "mine" / "push-up" / "seed-0" / "run.json").read_text())
    assert record["status"] == "finished"
    digest = hashlib.sha256(MINE.encode()).hexdigest()
    assert record["plugins"]["algorithm"] == {"name": "push-up", "origin": "mine.py", "sha256": digest}
    assert record["plugins"]["model"]["origin"].startswith("rfbench ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import no_such_module", "line 1 cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("\n\n1 / 0", "line 3 cannot be imported: ZeroDivisionError: division by zero"),
        ("def", "cannot be imported: SyntaxError: "),
        ("x = 1", "defines no plugin: no class in it fills in one of Algorithm, Model, Reward, PromptSet"),
        ("from rfbench_algorithms.prdp import PRDP", "defines no plugin"),
        ("from rfbench_algorithms.prdp import PRDP as P\nclass PRDP(P): ...",
         "defines PRDP, but 'prdp' is among the installed algorithms; rename the class"),
        (None, "there is no plugin file"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        registry.add_file(path)


def test_a_broken_package_is_named_and_the_others_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = registry._entries("algorithms")
    broken = {
        "absent": EntryPoint("absent", "no_such_module:Mine", "rfbench.algorithms"),
        "other": EntryPoint("other", "rfbench.rewards.jpeg:JpegCompressibility", "rfbench.algorithms"),
    }
    monkeypatch.setattr(registry, "_entries", lambda kind: entries | broken if kind == "algorithms" else {})
    assert rfbench("list", "algorithms") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "the algorithm 'absent' (no_such_module:Mine) cannot be imported: ModuleNotFoundError" in printed
    assert "not a subclass of Algorithm" in printed
    assert "Reward difference prediction" in printed


class Careless(Algorithm):
    """Breaks the interface in the way that the test asks for."""

    way = ""

    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        return Cost(0, 0)

    def update(self, rollout: Rollout, learner: Learner) -> Any:
        for chunk in learner.chunks(rollout):
            loss = learner.log_probs(chunk)
            if self.way == "a loss per image":
                learner.backward(loss)
            if self.way == "a loss without gradient":
                learner.backward(loss.sum().detach())
            if self.way == "an infinite loss":
                learner.backward(loss.sum() * float("inf"))
            if self.way != "no update":
                learner.backward(loss.sum())
        if self.way not in ("no update", "no step"):
            learner.step()
        if self.way == "a gradient after the last step":
            learner.backward(learner.log_probs(next(iter(learner.chunks(rollout)))).sum())
        return {
            "metrics that are no dict": [1.0],
            "a tensor among the metrics": {"loss": loss},
            "a metric that is not finite": {"loss": float("nan")},
        }.get(self.way, {"loss": 1})


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("a loss per image", r"the loss has shape \(16,\) at epoch 1, among the prompts 'a.*: backward takes a scalar"),
        ("a loss without gradient", "the loss at epoch 1, .* has no gradient: it does not depend on the policy"),
        ("an infinite loss", "the loss is -?inf at epoch 1, among the prompts 'a"),
        ("no update", r"no update in epoch 1: learner\.step\(\) was never called"),
        ("no step", r"no update in epoch 1"),
        ("a gradient after the last step", r"a gradient was left over in epoch 1: learner\.step\(\) must"),
        ("metrics that are no dict", "at epoch 1 returned list from update; it must return a dict of numbers"),
        (
            "a tensor among the metrics",
            r"(?s)returned the metric 'loss' = tensor.*\(Tensor\); metrics are plain numbers",
        ),
        ("a metric that is not finite", "at epoch 1 returned the metric 'loss' = nan"),
    ],
)
def test_a_broken_interface_is_told(suite: Suite, way: str, message: str) -> None:
    run = tiny.make_run(tiny.plan(suite, "ddpo"))
    run.algorithm = Careless(None)
    run.algorithm.way = way
    with pytest.raises((InterfaceError, NonFiniteError), match=message):
        run.update(run.rollout(0))
