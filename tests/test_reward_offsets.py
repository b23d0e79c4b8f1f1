"""A constant of each prompt on its training rewards: what it adds, what it takes away, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.core.rollout import group_means
from rfbench.errors import InputError
from rfbench.records.format import EpochRecord
from rfbench.records.identity import suite_hash
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.loading import suite_of
from rfbench.suite.suite import AlgorithmSettings, Budget, RewardOffsets, Suite
from tests import tiny
from tests.test_trainer import assert_same_run, lines


def offset(suite: Suite, **settings: Any) -> Suite:
    return suite.model_copy(update={"reward_offsets": RewardOffsets(**settings)})


def test_what_is_added_is_one_constant_for_each_prompt_in_every_epoch_layout_and_algorithm(suite: Suite) -> None:
    """Six prompts, 6 or 3 of them an epoch: each has its constant, of the size asked for, whenever it comes up."""
    constants: dict[str, set[float]] = {}
    for label, seed, of_each in (("prdp", 0, 2), ("ddpo", 0, 2), ("prdp", 1, 4)):
        spent = suite.settings_for(label).model_copy(update={"images_per_prompt": of_each})
        clean = suite.model_copy(update={"algorithms": {label: spent}})
        runs = [tiny.make_run(tiny.plan(s, label, seed)) for s in (clean, offset(clean, added_std=1000.0))]
        for epoch in (0, 1):
            before, after = (run.rollout(epoch) for run in runs)
            assert torch.equal(before.log_probs, after.log_probs)
            added = after.rewards - before.rewards
            assert torch.allclose(added, group_means(added, after.groups), atol=1e-2)
            for prompt, first in zip(after.prompts, added[::of_each].tolist(), strict=True):
                constants.setdefault(f"{seed} {prompt}", set()).add(round(first))
    assert all(len(values) == 1 for values in constants.values()), constants
    assert 300 < torch.tensor([value for values in constants.values() for value in values]).double().std() < 3000


def test_what_is_removed_is_each_prompts_mean_reward_under_the_base_model(suite: Suite) -> None:
    """At the base model a prompt's rewards then have mean 0, within the error of as few images."""
    plain, removed = (tiny.make_run(tiny.plan(s)) for s in (suite, offset(suite, base_images=64)))
    before, after = plain.rollout(0), removed.rollout(0)
    base_means = group_means(before.rewards - after.rewards, before.groups)
    of_all = {"prdp": AlgorithmSettings(images_per_prompt=64)}
    many = suite.model_copy(update={"budget": Budget(reward_queries_per_epoch=6 * 64), "algorithms": of_all})
    other_images = tiny.make_run(tiny.plan(many)).rollout(0)
    for group, prompt in enumerate(before.prompts):
        rewards = other_images.rewards[other_images.groups == other_images.prompts.index(prompt)]
        error = float(rewards.std()) * (2 / 64) ** 0.5
        assert abs(float(base_means[before.groups == group][0] - rewards.mean())) < 4 * error
    assert removed.counters() == plain.counters().model_copy(update={"base_reward_queries": 3 * 64})


def test_removal_takes_away_what_was_added_to_nothing_else(suite: Suite) -> None:
    """Both together: the constants that are drawn on top of rewards without differences of their own."""
    runs = [tiny.make_run(tiny.plan(s)) for s in (
        offset(suite, added_std=50.0, base_images=2), offset(suite, base_images=2), offset(suite, added_std=50.0), suite
    )]  # fmt: skip
    both, removed, added, plain = (run.rollout(0).rewards for run in runs)
    torch.testing.assert_close(both - removed, added - plain, rtol=0, atol=1e-3)


def test_after_training_the_base_models_means_are_still_the_base_models(suite: Suite) -> None:
    """The estimate of a prompt that first comes up late is the one that it would have had at the start."""
    hot = {"ddpo": suite.settings_for("ddpo").model_copy(update={"images_per_prompt": 6})}  # 2 of 6 prompts an epoch
    removed = offset(suite.model_copy(update={"algorithms": hot}), base_images=3)
    trained, untrained = (tiny.make_run(tiny.plan(removed, "ddpo")) for _ in range(2))
    trained.update(trained.rollout(0))
    late, early = trained.rollout(1), untrained.rollout(1)
    assert late.offsets is not None
    assert early.offsets is not None
    torch.testing.assert_close(late.offsets, early.offsets)
    assert not torch.equal(late.log_probs, early.log_probs)
    assert trained.counters().base_reward_queries == 4 * 3


@pytest.mark.slow
def test_resumed_equals_never_stopped(suite: Suite, tmp_path: Path) -> None:
    """Interrupted in the second epoch: means that were estimated are not estimated, nor counted, again."""
    both = offset(suite, added_std=2.0, base_images=2)
    whole = train(tiny.plan(both), tmp_path / "whole", Quiet())

    class StopAfterOne(Quiet):
        def on_epoch(self, record: EpochRecord) -> None:
            if record.epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny.plan(both), tmp_path / "cut", StopAfterOne())
    resumed = train(tiny.plan(both), tmp_path / "cut", Quiet(), resume=True)
    assert_same_run(whole, resumed)
    records = lines(whole, "metrics")
    assert [record["base_reward_queries"] for record in records] == [6, 12, 12]
    assert [record["reward_queries"] for record in records] == [12, 24, 36]


def test_evaluations_do_not_see_it(suite: Suite, tmp_path: Path) -> None:
    short = suite.model_copy(update={"epochs": 1})
    first = train(tiny.plan(short), tmp_path / "1", Quiet())
    second = train(tiny.plan(offset(short, added_std=9.0, base_images=1)), tmp_path / "2", Quiet())
    of_start = [[r for r in lines(folder, "evals") if r["epoch"] == 0] for folder in (first, second)]
    assert of_start[0] == of_start[1]
    offset_mean = lines(second, "metrics")[0]["reward_offset_mean"]
    raw = lines(second, "metrics")[0]["reward_mean"] - offset_mean
    assert raw == pytest.approx(lines(first, "metrics")[0]["reward_mean"], rel=1e-4)


def test_the_dry_run_counts_the_base_models_images_apart_from_training(suite: Suite) -> None:
    plain, removed = tiny.plan(suite).totals(), tiny.plan(offset(suite, base_images=7)).totals()
    assert removed.training_forwards == plain.training_forwards
    assert removed.reward_queries == plain.reward_queries
    # 3 epochs of 3 prompts, 5 steps, 2 branches of the guidance
    assert removed.evaluation_forwards - plain.evaluation_forwards == 3 * 3 * 7 * 5 * 2


def test_one_prompt_has_no_differences_to_add(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a cat")
    sets = {"seen": {"prompts": "train", "seen": True, "num_prompts": 1, "images_per_prompt": 2}}
    algorithms = {"prdp": {"images_per_prompt": 12}}
    one = tiny.make_suite(pipeline, tmp_path / "one.txt", evaluation={"sets": sets}, algorithms=algorithms)
    tiny.plan(offset(one, base_images=1))
    with pytest.raises(InputError, match=r"added_std is 3.5, but prompts.train has 1 prompt: .* at least 2"):
        tiny.plan(offset(one, added_std=3.5))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reward_offsets.base_images=0", r"reward_offsets.base_images: .*greater than or equal to 1 \(it is 0\)"),
        ("reward_offsets.added_std=0", r"reward_offsets.added_std: .*greater than 0 \(it is 0\)"),
        ("reward_offsets={}", r"reward_offsets: needs added_std, base_images or both"),
        ("reward_offsets.base_image=8", r"unknown key reward_offsets.base_image.*base_images"),
    ],
)
def test_what_is_refused(suite: Suite, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        suite_of(suite.model_dump(mode="json", exclude_none=True), [override], "mine")


def test_a_suite_without_it_keeps_its_hash(suite: Suite) -> None:
    def hashed(suite: Suite, without: str | None = None) -> str:
        planned = tiny.plan(suite).planned(1)
        return suite_hash({key: value for key, value in planned.suite.items() if key != without}, planned.inputs)

    assert hashed(suite) == hashed(suite, without="reward_offsets")
    assert len({hashed(suite), *(hashed(offset(suite, base_images=n)) for n in (1, 2))}) == 3
