"""How far rewards lie apart within a prompt and between prompts, against what they were drawn with."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from rfbench.cli import exit_code
from rfbench.core.rollout import Spread, spread
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import AlgorithmSettings, Suite
from tests import tiny
from tests.test_fetch import said
from tests.test_trainer import lines


@pytest.mark.parametrize("per_prompt", [2, 8])
@pytest.mark.parametrize(("between", "within"), [(3.0, 1.0), (0.5, 2.0)])
def test_estimates_are_what_the_rewards_were_drawn_with(between: float, within: float, per_prompt: int) -> None:
    """However few images a prompt has; the standard deviation of their means alone would be 1.5 for (0.5, 2), 2."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.arange(4000).repeat_interleave(per_prompt)
    means = between * torch.randn(4000, generator=generator)
    found = spread(20 + means[prompts] + within * torch.randn(len(prompts), generator=generator), prompts)
    assert found.within == pytest.approx(within, rel=0.03)
    assert found.between == pytest.approx(between, rel=0.1)
    assert found.ratio == pytest.approx(between / within, rel=0.12)


def test_groups_of_unequal_sizes_by_hand() -> None:
    """Snedecor's n_0 = (N - sum n^2 / N) / (G - 1) for sizes 1, 2 and 3."""
    found = spread(torch.tensor([1.0, 4.0, 6.0, 9.0, 10.0, 11.0]), torch.tensor([0, 2, 2, 5, 5, 5]))
    mean = 41 / 6
    between_groups = (1 - mean) ** 2 + 2 * (5 - mean) ** 2 + 3 * (10 - mean) ** 2
    within = (1 + 1 + 1 + 0 + 1) / 3
    n_0 = (6 - (1 + 4 + 9) / 6) / 2
    assert found.within == pytest.approx(math.sqrt(within))
    assert found.between == pytest.approx(math.sqrt((between_groups / 2 - within) / n_0))


def test_what_cannot_be_known_is_none() -> None:
    rewards = torch.tensor([1.0, 2.0, 3.0])
    assert spread(rewards, torch.tensor([0, 1, 2])) == Spread(None, None)
    assert spread(rewards, torch.tensor([0, 0, 0])) == Spread(1.0, None)
    assert spread(torch.tensor([1.0, 2.0, 1.0, 2.0]), torch.tensor([0, 0, 1, 1])).between == 0.0
    assert Spread(None, None).ratio is None
    assert Spread(0.0, 1.0).ratio is None
    assert Spread(2.0, 0.0).ratio == 0.0


def test_every_epochs_record_has_it_and_says_none_for_one_image_per_prompt(suite: Suite, tmp_path: Path) -> None:
    one = {"ddpo": AlgorithmSettings(images_per_prompt=1)}
    suites = {
        "one": suite.model_copy(update={"algorithms": one, "budget": suite.budget.model_copy(
            update={"reward_queries_per_epoch": 6})}),
        "two": suite,
    }  # fmt: skip
    records = {
        name: lines(train(tiny.plan(s, "ddpo"), tmp_path / name, Quiet()), "metrics") for name, s in suites.items()
    }
    keys = ("reward_std_within_prompt", "reward_std_between_prompts", "reward_between_over_within")
    assert all(record[key] is None for record in records["one"] for key in keys)
    assert all(record["reward_std"] > 0 for record in records["one"])
    for record in records["two"]:
        assert record["reward_std_within_prompt"] > 0
        assert record["reward_std_between_prompts"] >= 0
        assert record["reward_between_over_within"] >= 0
    assert exit_code(["compare", str(tmp_path / "one")]) == 0


def test_calibrate_prints_the_ratio_of_every_reward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["calibrate", "optimum-gaussian", "--out", str(tmp_path)]) == 0
    printed = said(capsys)
    written = tmp_path / "optimum-gaussian" / "base" / "quick.jsonl"
    records = [json.loads(line) for line in written.read_text().splitlines()]
    (reward,) = (record for record in records if record["role"] == "training")
    assert f" {reward['std_between_prompts'] / reward['std_within_prompt']:.4g}" in printed
    assert "ratio: std of a reward between prompts" in printed
    per_prompt = torch.tensor(reward["per_prompt"])
    copies = reward["images"] / len(per_prompt)
    expected = max(0.0, float(per_prompt.var()) - reward["std_within_prompt"] ** 2 / copies) ** 0.5
    assert reward["std_between_prompts"] == pytest.approx(expected, abs=1e-3)
