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
standardised first unless ``standardise`` is off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.algorithm import Algorithm, Cost, RolloutNeeds
from rfbench.core.learner import Learner
from rfbench.core.rollout import Rollout
from rfbench.errors import InputError
from rfbench.suite.settings import Settings, search


class RWRConfig(Settings):
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

    def __init__(self, config: RWRConfig) -> None:
        super().__init__(config)
        self._collected: Images | None = None
        self._epochs = 0  # of the round so far

    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        contests, competing = _contests(self.config, num_prompts, images_per_prompt)
        kept = num_best(competing, self.config.percentile) if self.config.weights == "sparse" else competing
        calls = math.ceil(contests * kept * self.config.passes / self.config.epochs_per_round)
        return Cost(forwards=calls, backwards=calls, guided=self.config.guided)

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
        weights = self._weights(images)
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
        num_timesteps = len(policy.model.noise_schedule.alphas_cumprod)
        counting = torch.nonzero(weights > 0).flatten()
        total_loss = 0.0
        for k in range(config.passes):
            order = torch.randperm(len(counting), generator=learner.generator("rwr", "order", epoch, k))
            for batch in counting[order].split(config.batch_size):
                for where in learner.split(len(batch)):
                    rows = batch.sort().values[where]
                    generators = [learner.generator("rwr", epoch, k, row) for row in rows.tolist()]
                    timesteps = torch.stack([torch.randint(num_timesteps, (), generator=g) for g in generators])
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

    def _weights(self, images: Images) -> Tensor:
        """``(n,)``, mean 1."""
        rewards, config = images.rewards.double(), self.config
        if config.weights == "uniform":
            return torch.ones_like(rewards)
        weights = torch.empty_like(rewards)
        groups = torch.zeros_like(images.groups) if config.over == "round" else images.groups
        for group in groups.unique():
            members = groups == group
            if config.weights == "sparse":
                weights[members] = sparse_weights(rewards[members], config.percentile)
            else:
                weights[members] = softmax_weights(rewards[members], config.inverse_temperature, config.standardise)
        return weights

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
