"""Weighted sums: the arithmetic, the sources of the terms, and their settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rfbench.errors import InputError
from rfbench.plugins.component import Component
from rfbench.rewards.jpeg import JpegConfig, JpegIncompressibility
from rfbench.rewards.weighted_sum import WeightedSum, WeightedSumConfig
from tests.rewards import tiny

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
