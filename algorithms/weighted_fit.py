"""What reward-weighted regression and best-of-n share: rounds of images, and the weighted denoising loss on them.

A round collects the images of a few epochs from the current policy, then finetunes on them with the ordinary denoising
loss, an image counting the more the higher its reward. It needs no trajectories and no log-probs, only x_0 and r:

    mean over images of  w_i |eps - eps_theta(sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps, t, c)|^2,    t uniform

with the squared norm averaged over the latent dimensions, t over all training timesteps, and fresh t and eps for every
image and pass. The weights average to 1 over the round.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.algorithm import Algorithm, Cost, RolloutNeeds
from rfbench.core.learner import Learner
from rfbench.core.rollout import Rollout
from rfbench.suite.settings import Settings, search


class WeightedFitConfig(Settings):
    """What the settings of `WeightedFit` have in common."""

    guided: bool = Field(False, description="fit the guided prediction, the gradient through both branches")
    epochs_per_round: int = Field(
        1, ge=1, description="epochs whose images make a round; the policy is updated at the end of each round alone"
    )
    passes: int = Field(
        10,
        ge=1,
        description="passes over the images that count, each with one (t, eps) per image",
        json_schema_extra=search(2, 50),
    )
    batch_size: int = Field(128, ge=1, description="images per optimiser step", json_schema_extra=search(32, 256))
    fresh_optimizer: bool = Field(True, description="whether every round begins with a fresh optimiser, as published")


@dataclass
class Images:
    """``n`` scored images of a round, on the CPU, the same in every process."""

    prompts: list[str]
    rewards: Tensor  # (n,)
    groups: Tensor  # (n,) the images of one prompt in one epoch share a number
    latents: Tensor  # (n, ...) x_0

    def join(self, newer: Images) -> Images:
        return Images(
            [*self.prompts, *newer.prompts],
            torch.cat([self.rewards, newer.rewards]),
            torch.cat([self.groups, newer.groups + self.groups.max() + 1]),
            torch.cat([self.latents, newer.latents]),
        )


def best_weights(rewards: Tensor, count: int) -> Tensor:
    """Weights ``(n,)`` with mean 1: equal for the ``count`` best, 0 for the others. Of tied rewards the first count."""
    weights = torch.zeros_like(rewards)
    weights[rewards.argsort(descending=True, stable=True)[:count]] = len(rewards) / count
    return weights


def of_each(groups: Tensor, rewards: Tensor, weigh: Callable[[Tensor], Tensor]) -> Tensor:
    """``(n,)`` what ``weigh`` makes of ``rewards`` ``(n,)`` where those of each of the ``groups`` ``(n,)`` compete."""
    weights = torch.empty_like(rewards)
    for group in groups.unique():
        members = groups == group
        weights[members] = weigh(rewards[members])
    return weights


class WeightedFit(Algorithm):
    """Denoising loss on the policy's own samples, weighted as a member of the family says."""

    Config = WeightedFitConfig
    rollout_needs = RolloutNeeds(trajectories=False, off_policy=True)
    config: WeightedFitConfig

    def __init__(self, config: WeightedFitConfig) -> None:
        super().__init__(config)
        self._collected: Images | None = None
        self._epochs = 0  # of the round so far

    @abstractmethod
    def weights(self, images: Images) -> Tensor:
        """``(n,)`` of a round's images, mean 1; those of weight 0 cost no network call."""

    @abstractmethod
    def num_counting(self, num_prompts: int, images_per_prompt: int) -> int:
        """How many images of a round, of epochs of that size, have a weight above 0."""

    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        config, counting = self.config, self.num_counting(num_prompts, images_per_prompt)
        calls = math.ceil(counting * config.passes / config.epochs_per_round)
        return Cost(forwards=calls, backwards=calls, guided=config.guided)

    def update(self, rollout: Rollout, learner: Learner) -> dict[str, float]:
        new = _images(rollout, learner)
        images = new if self._collected is None else self._collected.join(new)
        self._collected, self._epochs = images, self._epochs + 1
        if self._epochs < self.config.epochs_per_round:
            learner.skip_update()
            return {"round_images": len(images.prompts)}
        self._collected, self._epochs = None, 0
        if self.config.fresh_optimizer:
            learner.restart_optimizer()
        weights = self.weights(images)
        loss = self._fit(images, weights, rollout.epoch, learner)
        return {
            "round_images": len(images.prompts),
            "loss": loss,
            "effective_images": float(weights.sum().square() / weights.square().sum()),
            "weight_max": float(weights.max()),
        }

    def _fit(self, images: Images, weights: Tensor, epoch: int, learner: Learner) -> float:
        """The passes over the images that count; the mean of the weighted loss over the passes."""
        policy, config = learner.policy, self.config
        counting = torch.nonzero(weights > 0).flatten()
        total_loss = 0.0
        for k in range(config.passes):
            order = torch.randperm(len(counting), generator=learner.generator("rwr", "order", epoch, k))
            for batch in counting[order].split(config.batch_size):
                for where in learner.split(len(batch)):
                    rows = batch.sort().values[where]
                    generators = [learner.generator("rwr", epoch, k, row) for row in rows.tolist()]
                    timesteps = torch.stack([policy.process.random_timestep(g) for g in generators])
                    noise = torch.stack([torch.randn(images.latents.shape[1:], generator=g) for g in generators])
                    losses = policy.denoising_loss(
                        images.latents[rows].to(learner.device),
                        noise.to(learner.device),
                        timesteps.to(learner.device),
                        policy.encode_prompts([images.prompts[row] for row in rows.tolist()]),
                        guided=config.guided,
                    )
                    weighted = (weights[rows].to(losses) * losses).sum() / len(weights)
                    learner.backward(weighted * len(counting) / len(batch))  # of the mean over a whole pass
                    total_loss += float(weighted.detach())
                learner.step()
        return float(learner.sum(torch.tensor(total_loss))) / config.passes

    def state_dict(self) -> dict[str, Any]:
        return {} if self._collected is None else {"epochs": self._epochs, "images": vars(self._collected)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            images = dict(state["images"])
            self._collected = Images(images.pop("prompts"), **{name: value.cpu() for name, value in images.items()})
            self._epochs = state["epochs"]


def _images(rollout: Rollout, learner: Learner) -> Images:
    """The rollout's images, gathered from all processes."""
    latents = torch.zeros(rollout.num_images, *rollout.clean_latents.shape[1:])
    latents[rollout.local.start : rollout.local.stop] = rollout.clean_latents
    prompts = [rollout.prompts[group] for group in rollout.groups.tolist()]
    return Images(prompts, rollout.rewards, rollout.groups, learner.sum(latents))
