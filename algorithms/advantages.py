"""Advantages: what a reward is compared with, and in which unit the difference counts.

Pure functions of ``(images,)`` rewards, but for the buffers, which remember. Standard deviations are those of the
population (n, not n - 1), as in every public implementation of DDPO.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rfbench.core.rollout import group_means


class Statistics(NamedTuple):
    """What each image's reward is standardised by, ``(images,)`` each."""

    mean: Tensor
    std: Tensor

    def standardise(self, rewards: Tensor, clip: float, smallest: float = 1e-6) -> Tensor:
        """Advantages ``(images,)``: standard deviations from the mean, at most ``clip``."""
        return ((rewards - self.mean) / (self.std + smallest)).clamp(-clip, clip)


def batch_statistics(rewards: Tensor) -> Statistics:
    """Those of all images of the epoch."""
    return Statistics(rewards.mean().expand_as(rewards), rewards.std(correction=0).expand_as(rewards))


def group_statistics(rewards: Tensor, groups: Tensor) -> Statistics:
    """Those of the images with the same number in ``groups`` ``(images,)``."""
    mean = group_means(rewards, groups)
    return Statistics(mean, group_means((rewards - mean).square(), groups).sqrt())


def leave_one_out_mean(rewards: Tensor, groups: Tensor) -> Tensor:
    """``(images,)`` the mean of the group's other images, which does not depend on the image's own reward.

    The deviation from it is n / (n - 1) times the deviation from the group's mean. A group of one has no other image:
    a ``ValueError``.
    """
    sizes = torch.bincount(groups)[groups]
    if bool((sizes == 1).any()):
        raise ValueError("leave-one-out needs at least 2 images in every group; one has 1")
    return (group_means(rewards, groups) * sizes - rewards) / (sizes - 1)


def advantages(rewards: Tensor, groups: Tensor, whose: str, clip: float, smallest: float = 1e-6) -> Tensor:
    """Advantages ``(images,)`` of rewards and groups ``(images,)``, from one epoch's rewards alone.

    Args:
        whose: what a reward is compared with, and what the deviation is divided by:

            batch          the mean of all images; their standard deviation
            group          the mean of the group's images; their standard deviation
            group-mean     the mean of the group's images; the standard deviation of all
            group-centred  the mean of the group's images; nothing
            leave-one-out  the mean of the group's other images; nothing
        clip: the largest size of an advantage, in standard deviations; what is divided by nothing is not clipped.
        smallest: added to a standard deviation.
    """
    match whose:
        case "batch":
            statistics = batch_statistics(rewards)
        case "group":
            statistics = group_statistics(rewards, groups)
        case "group-mean":
            statistics = Statistics(group_means(rewards, groups), batch_statistics(rewards).std)
        case "group-centred":
            return rewards - group_means(rewards, groups)
        case "leave-one-out":
            return rewards - leave_one_out_mean(rewards, groups)
        case _:
            raise ValueError(f"no advantages are called {whose!r}")
    return statistics.standardise(rewards, clip, smallest)


class PromptBuffers:
    """The latest rewards of every prompt.

    Args:
        size: rewards kept for each prompt.
        min_count: rewards that a buffer must hold before its statistics are used.
    """

    def __init__(self, size: int, min_count: int) -> None:
        self._size, self._min_count = size, min_count
        self._rewards: dict[str, deque[float]] = {}

    def add(self, rewards: Tensor, prompts: Sequence[str]) -> Statistics:
        """Adds an epoch's rewards, each of its image's prompt, and gives every image its prompt's statistics.

        They are read when all rewards are in: a prompt's images are judged alike wherever they stand in the epoch. For
        a prompt with fewer than ``min_count`` rewards they are those of the epoch's whole batch.
        """
        for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
            self._rewards.setdefault(prompt, deque(maxlen=self._size)).append(reward)
        mean, std = (values.clone() for values in batch_statistics(rewards))
        for prompt in set(prompts):
            buffer = torch.tensor(list(self._rewards[prompt]), dtype=rewards.dtype)
            if len(buffer) >= self._min_count:
                members = torch.tensor([other == prompt for other in prompts])
                mean[members], std[members] = buffer.mean(), buffer.std(correction=0)
        return Statistics(mean, std)

    def state_dict(self) -> dict[str, list[float]]:
        return {prompt: list(rewards) for prompt, rewards in self._rewards.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self._rewards = {prompt: deque(rewards, maxlen=self._size) for prompt, rewards in state.items()}
