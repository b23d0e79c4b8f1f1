"""Weighted sums: the arithmetic, the sources of the terms, and their settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.core.algorithm import Algorithm
from rfbench.core.learner import Learner
from rfbench.core.rollout import Rollout, RolloutNeeds
from rfbench.errors import InputError, InterfaceError
from rfbench.planning.plan import make_outline
from rfbench.plugins import registry
from rfbench.plugins.component import Component
from rfbench.rewards.jpeg import JpegConfig, JpegIncompressibility
from rfbench.rewards.weighted_sum import WeightedSum, WeightedSumConfig
from rfbench.suite.loading import load_suite
from rfbench.suite.suite import Budget, PluginRef, Suite
from tests import tiny as pipelines
from tests.rewards import tiny
from tests.runs import lines, run

CPU = torch.device("cpu")


def config(*terms: dict[str, Any]) -> WeightedSumConfig:
    return WeightedSumConfig.model_validate({"terms": terms})


def test_each_term_has_its_weight_and_its_own_settings() -> None:
    images = torch.cat([tiny.as_tensor(tiny.picture(32, 32, seed)) for seed in range(3)])
    at_95, at_20 = (JpegIncompressibility(JpegConfig(quality=q), CPU)(images, [""] * 3) for q in (95, 20))
    reward = WeightedSum(
        config(
            {"name": "jpeg-incompressibility", "weight": 10},
            {"name": "jpeg-compressibility", "weight": 0.5, "quality": 20},
        ),
        CPU,
    )
    assert torch.allclose(reward(images, [""] * 3), 10 * at_95 - 0.5 * at_20)
    assert reward.unit == "10 jpeg-incompressibility + 0.5 jpeg-compressibility"
    assert not reward.uses_prompts


def test_sources_are_those_of_the_terms_at_their_places() -> None:
    settings = config(
        {"name": "pickscore", "weight": 10.0, "path": "mine"},
        {"name": "hpsv2", "weight": 2.0, "version": "v2.1"},
        {"name": "aesthetic", "weight": 0.05},
    )
    sources = Component("rewards", "weighted-sum", WeightedSum, settings).sources()
    assert [(source.setting, source.path) for source in sources] == [
        ("terms.0.path", "mine"),
        ("terms.0.processor", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
        ("terms.1.path", "xswu/HPSv2"),
        ("terms.2.path", "camenduru/improved-aesthetic-predictor"),
        ("terms.2.clip", "openai/clip-vit-large-patch14"),
    ]
    assert sources[2].files == ("HPS_v2.1_compressed.pt",)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"name": "pikscore", "weight": 1.0}, "unknown reward 'pikscore' .did you mean 'pickscore'"),
        ({"name": "hpsv2", "weight": 1.0, "verson": "v2.1"}, "unknown key verson"),
    ],
)
def test_a_wrong_term_is_found_before_anything_loads(term: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(term)


def test_each_term_is_recorded_beside_the_total(suite: Suite, tmp_path: Path) -> None:
    """Of a term that comes twice, each under its place; algorithms find the scores image by image."""
    terms = [
        {"name": "jpeg-incompressibility", "weight": 2.0},
        {"name": "jpeg-compressibility", "weight": 0.5, "quality": 20},
        {"name": "jpeg-compressibility", "weight": 1.0},
    ]
    reward = {"name": "weighted-sum", "terms": terms}
    data = suite.model_dump() | {"reward": reward}
    data["evaluation"]["held_out_rewards"] = []
    summed = Suite.model_validate(data)
    rollout = pipelines.make_run(pipelines.plan(summed, "rwr")).rollout(0)
    heads = rollout.reward_heads
    assert list(heads) == ["jpeg-incompressibility", "jpeg-compressibility.1", "jpeg-compressibility.2"]
    total = (
        2 * heads["jpeg-incompressibility"] + 0.5 * heads["jpeg-compressibility.1"] + heads["jpeg-compressibility.2"]
    )
    assert torch.allclose(rollout.rewards, total)
    assert torch.allclose(heads["jpeg-incompressibility"], -heads["jpeg-compressibility.2"])
    record = lines(run(summed, tmp_path, "rwr"), "metrics")[0]
    means = {name: record[f"reward_mean.{name}"] for name in heads}
    assert means == {name: pytest.approx(float(scores.mean())) for name, scores in heads.items()}


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda heads: heads["jpeg-compressibility"].mul_(2), "reward_heads\\['jpeg-compressibility'\\]"),
        (lambda heads: heads["jpeg-incompressibility"].numpy().sort(), "reward_heads\\['jpeg-incompressibility'\\]"),
        (lambda heads: heads.pop("jpeg-compressibility"), "reward_heads\\['jpeg-compressibility'\\]"),
    ],
)
def test_an_algorithm_may_not_change_the_terms(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[dict[str, torch.Tensor]], object], named: str
) -> None:
    """They are recorded after its update."""
    terms = [{"name": "jpeg-compressibility", "weight": 1.0}, {"name": "jpeg-incompressibility", "weight": 2.0}]
    data = suite.model_dump() | {"reward": {"name": "weighted-sum", "terms": terms}}
    data["evaluation"]["held_out_rewards"] = []
    made = pipelines.make_run(pipelines.plan(Suite.model_validate(data), "rwr"))
    rollout, update = made.rollout(0), made.algorithm.update

    def spoiling(rollout: Rollout, learner: Learner) -> dict[str, float]:
        spoil(rollout.reward_heads)
        return update(rollout, learner)

    monkeypatch.setattr(made.algorithm, "update", spoiling)
    with pytest.raises(InterfaceError, match=f"changed rollout.{named} in its update at epoch 1"):
        made.update(rollout)


class ByTerm(Algorithm):
    """Needs a reward's terms."""

    rollout_needs = RolloutNeeds(reward_heads=True)
    cost = update = None  # type: ignore[assignment]


def test_an_algorithm_that_needs_the_terms_is_refused_a_reward_without(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._registered["algorithms"], "by-term", ByTerm)
    suite = suite.model_copy(update={"budget": Budget(reward_queries_per_epoch=16)})
    with pytest.raises(InputError, match="by-term needs a reward's terms one by one, but reward jpeg-incompressibil"):
        make_outline(suite, "by-term", seed=0)
    terms = [{"name": "jpeg-compressibility", "weight": 1.0}, {"name": "jpeg-incompressibility", "weight": 2.0}]
    summed = suite.model_copy(update={"reward": PluginRef.model_validate({"name": "weighted-sum", "terms": terms})})
    assert make_outline(summed, "by-term", seed=0).label == "by-term"


def test_a_term_of_the_trained_sum_is_evaluated_but_not_as_held_out(suite: Suite, tmp_path: Path) -> None:
    data = suite.model_dump() | {
        "reward": {"name": "weighted-sum", "terms": [{"name": "jpeg-compressibility", "weight": 1}]}
    }
    data["evaluation"]["held_out_rewards"] = [{"name": "jpeg-compressibility"}, {"name": "jpeg-incompressibility"}]
    records = lines(run(Suite.model_validate(data), tmp_path, "rwr"), "evals")
    roles = {record["measure"]: record["role"] for record in records}
    expected = {"weighted-sum": "training", "jpeg-compressibility": "diagnostic", "jpeg-incompressibility": "held-out"}
    assert {measure: roles[measure] for measure in expected} == expected


def test_a_wrong_term_is_told_once(suite: Suite) -> None:
    with pytest.raises(InputError) as caught:
        make_outline(
            load_suite("tiny-shapes", ['reward={name="weighted-sum",terms=[{name="shapes-gold"}]}']), "prdp", 0
        )
    assert "terms.0.weight is missing" in str(caught.value)
    assert "at least 1 item" not in str(caught.value)
