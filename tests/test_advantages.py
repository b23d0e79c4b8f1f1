"""Means and standard deviations for every image against Python's own, group by group."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfbench_algorithms.advantages import PromptBuffers, batch_statistics, group_statistics, leave_one_out_mean

rewards_in_groups = st.lists(st.tuples(st.integers(0, 3), st.floats(-50, 50)), min_size=1, max_size=12)


@given(images=rewards_in_groups)
def test_statistics_are_those_of_the_population(images: list[tuple[int, float]]) -> None:
    groups, rewards = torch.tensor([g for g, _ in images]), torch.tensor([r for _, r in images], dtype=torch.float64)
    of_group, of_batch = group_statistics(rewards, groups), batch_statistics(rewards)
    for image, (group, _) in enumerate(images):
        members = [r for g, r in images if g == group]
        for found, population in ((of_group, members), (of_batch, rewards.tolist())):
            assert found.mean[image].item() == pytest.approx(statistics.fmean(population), abs=1e-10)
            assert found.std[image].item() == pytest.approx(statistics.pstdev(population), abs=1e-6)


@given(images=rewards_in_groups)
def test_leave_one_out_is_the_mean_of_the_others(images: list[tuple[int, float]]) -> None:
    groups, rewards = torch.tensor([g for g, _ in images]), torch.tensor([r for _, r in images], dtype=torch.float64)
    others = [[r for j, (g, r) in enumerate(images) if g == group and j != i] for i, (group, _) in enumerate(images)]
    if not all(others):
        with pytest.raises(ValueError, match="at least 2 images in every group; one has 1"):
            leave_one_out_mean(rewards, groups)
        return
    assert leave_one_out_mean(rewards, groups).tolist() == pytest.approx([*map(statistics.fmean, others)], abs=1e-10)


def test_buffers_keep_the_latest_rewards_over_epochs() -> None:
    buffers = PromptBuffers(size=3, min_count=3)
    first = buffers.add(torch.tensor([1.0, 2.0], dtype=torch.float64), ["a", "b"])
    assert first.mean.tolist() == [1.5, 1.5]  # too few of either: the batch's
    restored = PromptBuffers(size=3, min_count=3)
    restored.load_state_dict(buffers.state_dict())
    for kept in (buffers, restored):
        second = kept.add(torch.tensor([3.0, 5.0, 8.0], dtype=torch.float64), ["a", "a", "a"])
        assert second.mean.tolist() == pytest.approx([16 / 3] * 3)
        assert second.std.tolist() == pytest.approx([statistics.pstdev([3, 5, 8])] * 3)
