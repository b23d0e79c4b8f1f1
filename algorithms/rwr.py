"""RWR: reward-weighted regression (Lee et al. 2023, arXiv 2302.12192; set up for comparison by Black et al. 2024).

A round collects the images of a few epochs from the current policy, then finetunes on them with the ordinary denoising
loss, an image counting the more the higher its reward. It needs no trajectories and no log-probs, only x_0 and r:

    mean over images of  w_i |eps - eps_theta(sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps, t, c)|^2,    t uniform

with the squared norm averaged over the latent dimensions, t over all training timesteps, and fresh t and eps for every
image and pass. The weights average to 1 over each prompt's images (or over the round):

    softmax    w_i = n exp(r_i / tau) / sum_j exp(r_j / tau)
    sparse     w_i = n / k for the k best images, 0 for the others: those from the given percentile of the reward up
    uniform    w_i = 1, a control: what finetuning on the policy's own images does without any reward

The published 1 / tau = 0.2 multiplies the raw reward, so it means something else for every reward; here rewards are
standardised first unless ``standardise`` is off. The rounds and the loss are shared with best-of-n:
`rfbench_algorithms.weighted_fit`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rfbench.errors import InputError
from rfbench_algorithms.weighted_fit import Images, WeightedFit, WeightedFitConfig, best_weights, of_each


class RWRConfig(WeightedFitConfig):
    """Settings of RWR."""

    weights: Literal["softmax", "sparse", "uniform"] = Field("softmax", description="how rewards become weights")
    over: Literal["prompt", "round"] = Field(
        "prompt", description="the images that compete: one prompt's of one epoch, or all of the round"
    )
    inverse_temperature: float = Field(
        1.0,
        gt=0,
        description="1 / tau of softmax, per standard deviation of the reward; per raw unit if not standardised",
    )
    standardise: bool = Field(True, description="subtract the mean and divide by the std of the images that compete")
    percentile: float = Field(90.0, ge=0, lt=100, description="sparse: the reward's percentile from which images count")


def _contests(config: RWRConfig, num_prompts: int, images_per_prompt: int) -> tuple[int, int]:
    """How many sets of images a round has whose rewards are compared, and how many images each."""
    prompts = config.epochs_per_round * num_prompts
    return (1, prompts * images_per_prompt) if config.over == "round" else (prompts, images_per_prompt)


def softmax_weights(rewards: Tensor, inverse_temperature: float, standardise: bool) -> Tensor:
    """Weights ``(n,)`` with mean 1 from rewards ``(n,)``; equal rewards give equal weights."""
    if standardise:
        rewards = (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-6)
    return len(rewards) * (inverse_temperature * rewards).softmax(0)


def num_best(count: int, percentile: float) -> int:
    """How many of ``count`` distinct rewards lie at or above their percentile; at least one."""
    return count - math.ceil(percentile / 100 * (count - 1) - 1e-9)


def sparse_weights(rewards: Tensor, percentile: float) -> Tensor:
    """Weights ``(n,)`` with mean 1: equal for the ``num_best``, 0 for the others. Of tied rewards the first count."""
    return best_weights(rewards, num_best(len(rewards), percentile))


class RWR(WeightedFit):
    """Denoising loss on the policy's own samples, weighted by reward."""

    Config = RWRConfig
    config: RWRConfig

    @classmethod
    def check(cls, config: RWRConfig, num_prompts: int, images_per_prompt: int, num_steps: int) -> None:
        _, competing = _contests(config, num_prompts, images_per_prompt)
        whose = f"config.over is {config.over!r}, so {competing} image{'s compete' if competing > 1 else ' competes'}"
        if config.weights == "uniform":
            return
        if competing == 1:
            raise InputError(
                f"{whose} with none: every weight would be 1, whatever the reward; use images_per_prompt=2 or more, or "
                " config.over=round with 2 or more reward queries per round"
            )
        if config.weights == "sparse" and num_best(competing, config.percentile) == competing:
            raise InputError(
                f"{whose}, and all of them lie at or above the percentile {config.percentile:g}: every weight would be "
                "1, whatever the reward; raise config.percentile"
            )

    def num_counting(self, num_prompts: int, images_per_prompt: int) -> int:
        contests, competing = _contests(self.config, num_prompts, images_per_prompt)
        return contests * (
            num_best(competing, self.config.percentile) if self.config.weights == "sparse" else competing
        )

    def weights(self, images: Images) -> Tensor:
        rewards, config = images.rewards.double(), self.config
        if config.weights == "uniform":
            return torch.ones_like(rewards)
        groups = torch.zeros_like(images.groups) if config.over == "round" else images.groups
        if config.weights == "sparse":
            return of_each(groups, rewards, lambda those: sparse_weights(those, config.percentile))
        return of_each(
            groups, rewards, lambda those: softmax_weights(those, config.inverse_temperature, config.standardise)
        )
