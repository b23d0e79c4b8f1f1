"""RWR: reward-weighted regression (Lee et al. 2023, arXiv 2302.12192; set up for comparison by Black et al. 2024).

Each epoch samples images from the current policy, then finetunes on them with the ordinary denoising loss, an image
counting the more the higher its reward. It needs no trajectories and no log-probs, only x_0 and r:

    mean over images of  w_i |eps - eps_theta(sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps, t, c)|^2,    t uniform

with the squared norm averaged over the latent dimensions, t over all training timesteps, and fresh t and eps for every
image and update. The weights average to 1 over the epoch (or over each prompt's images):

    softmax    w_i = n exp(r_i / tau) / sum_j exp(r_j / tau)
    sparse     w_i = n / k for the k best images, 0 for the others: those from the given percentile of the reward up

The published 1 / tau = 0.2 multiplies the raw reward, so it means something else for every reward; here rewards are
standardised first unless ``standardise`` is off.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.algorithm import Algorithm, Cost, RolloutNeeds
from rfbench.core.learner import Learner
from rfbench.core.rollout import Rollout
from rfbench.errors import InputError
from rfbench.suite.settings import Settings


class RWRConfig(Settings):
    """Settings of RWR."""

    weights: Literal["softmax", "sparse"] = Field("softmax", description="how rewards become weights")
    over: Literal["epoch", "prompt"] = Field("epoch", description="the images that compete: all, or one prompt's")
    inverse_temperature: float = Field(
        1.0,
        gt=0,
        description="1 / tau of softmax, per standard deviation of the reward; per raw unit if not standardised",
    )
    standardise: bool = Field(True, description="subtract the mean and divide by the std of the images that compete")
    percentile: float = Field(90.0, ge=0, lt=100, description="sparse: the reward's percentile from which images count")
    guided: bool = Field(False, description="fit the guided prediction, the gradient through both branches")
    updates_per_epoch: int = Field(10, ge=1, description="optimiser steps per epoch, each with one (t, eps) per image")


def _contests(config: RWRConfig, num_prompts: int, images_per_prompt: int) -> tuple[int, int]:
    """How many sets of images an epoch has whose rewards are compared, and how many images each."""
    return (1, num_prompts * images_per_prompt) if config.over == "epoch" else (num_prompts, images_per_prompt)


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
    weights = torch.zeros_like(rewards)
    best = rewards.argsort(descending=True, stable=True)[: num_best(len(rewards), percentile)]
    weights[best] = len(rewards) / len(best)
    return weights


class RWR(Algorithm):
    """Denoising loss on the policy's own samples, weighted by reward."""

    Config = RWRConfig
    rollout_needs = RolloutNeeds(trajectories=False, off_policy=True)
    config: RWRConfig

    @classmethod
    def check(cls, config: RWRConfig, num_prompts: int, images_per_prompt: int, num_steps: int) -> None:
        _, competing = _contests(config, num_prompts, images_per_prompt)
        whose = f"config.over is {config.over!r}, so {competing} image{'s compete' if competing > 1 else ' competes'}"
        if competing == 1:
            raise InputError(
                f"{whose} with none: every weight would be 1, whatever the reward; use images_per_prompt=2 or more, or "
                " config.over=epoch with 2 or more reward queries per epoch"
            )
        if config.weights == "sparse" and num_best(competing, config.percentile) == competing:
            raise InputError(
                f"{whose}, and all of them lie at or above the percentile {config.percentile:g}: every weight would be "
                "1, whatever the reward; raise config.percentile"
            )

    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        contests, competing = _contests(self.config, num_prompts, images_per_prompt)
        kept = num_best(competing, self.config.percentile) if self.config.weights == "sparse" else competing
        calls = contests * kept * self.config.updates_per_epoch
        return Cost(forwards=calls, backwards=calls, guided=self.config.guided)

    def update(self, rollout: Rollout, learner: Learner) -> dict[str, float]:
        weights = self._weights(rollout)
        policy = learner.policy
        num_timesteps = len(policy.model.noise_schedule.alphas_cumprod)
        total_loss = 0.0
        for k in range(self.config.updates_per_epoch):
            for chunk in learner.clean_chunks(rollout, where=weights > 0):
                generators = [learner.generator("rwr", rollout.epoch, k, image) for image in chunk.images.tolist()]
                timesteps = torch.stack([torch.randint(num_timesteps, (), generator=g) for g in generators])
                noise = torch.stack([torch.randn(chunk.latents.shape[1:], generator=g) for g in generators])
                losses = policy.denoising_loss(
                    chunk.latents,
                    noise.to(chunk.latents),
                    timesteps.to(learner.device),
                    chunk.condition,
                    guided=self.config.guided,
                )
                loss = (weights[chunk.images].to(losses) * losses).sum() / rollout.num_images
                learner.backward(loss)
                total_loss += float(loss.detach())
            learner.step()
        return {
            "loss": float(learner.sum(torch.tensor(total_loss))) / self.config.updates_per_epoch,
            "effective_images": float(weights.sum().square() / weights.square().sum()),
            "weight_max": float(weights.max()),
        }

    def _weights(self, rollout: Rollout) -> Tensor:
        """``(images,)``, mean 1."""
        rewards = rollout.rewards.double()
        weights = torch.empty_like(rewards)
        groups = torch.zeros_like(rollout.groups) if self.config.over == "epoch" else rollout.groups
        for group in groups.unique():
            members = groups == group
            if self.config.weights == "sparse":
                weights[members] = sparse_weights(rewards[members], self.config.percentile)
            else:
                weights[members] = softmax_weights(
                    rewards[members], self.config.inverse_temperature, self.config.standardise
                )
        return weights
