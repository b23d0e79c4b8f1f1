"""What the forward-process family shares: noised copies of an epoch's own images, and their errors in x_0.

Its members need no trajectories. An image x_0 is noised to x_t = a_t x_0 + b_t eps at a few noise levels t, and the
error of the network's x_0 there stands for the image's log-prob (the ELBO's terms):

    e_theta(x_0, t, eps) = mean over dimensions of (x_0_theta(x_t, t, c) - x_0)^2 / w,
    w = mean over dimensions of |x_0_theta - x_0|, at least 1e-5 and without gradient

The division makes the noise levels count alike, as the official code of DiffusionNFT does (arXiv 2509.16117; 2602.04663
calls it "adaptive"). a_t, b_t and how the network's output tells x_0 are the base model's; x_0 is the same quantity
for all of them, so that the objectives carry over. Where a member writes eps_theta, it is that output: the noise, or
whatever else the network predicts. Predictions are unguided, as published, unless ``guided`` asks for the suite's
guidance.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.algorithm import Algorithm, Cost, RolloutNeeds
from rfbench.core.conditioning import Condition
from rfbench.core.learner import Learner
from rfbench.core.policy import POLICY, REFERENCE
from rfbench.core.rollout import Rollout
from rfbench.errors import InputError
from rfbench.suite.settings import Settings, search
from rfbench_algorithms.advantages import advantages

OLD = "old"  # the policy that lags behind
SMALLEST_WEIGHT = 1e-5  # of w


class DrawsConfig(Settings):
    """At what noise levels, and how, images are judged."""

    draws: int | None = Field(
        None,
        ge=1,
        description="noise levels at which an image is judged, spread over the sampler's steps; null: every step once",
    )
    guided: bool = Field(False, description="judge the guided prediction; as published, the plain one")

    def num_draws(self, num_steps: int) -> int:
        """Noise levels per image, with ``num_steps`` objective steps."""
        return num_steps if self.draws is None else self.draws


class ForwardProcessConfig(DrawsConfig):
    """What the settings of `ForwardProcess` have in common."""

    advantage_clip: float = Field(5.0, gt=0, description="a, in standard deviations of the reward")
    updates_per_epoch: int = Field(
        1,
        ge=1,
        description="optimiser steps per epoch, each on its share of the prompts",
        json_schema_extra=search(1, 4),
    )
    kl_weight: float = Field(
        1e-4, ge=0, description="of the squared distance to the reference's network output, a mean over dimensions"
    )
    old_decay_slope: float = Field(
        0.001, ge=0, description="by how much the lag of the old policy grows with every epoch: decay = slope x epoch"
    )
    old_decay_max: float = Field(0.5, ge=0, lt=1, description="and up to where")

    def old_decay(self, epoch: int) -> float:
        """The share of itself that the old policy keeps after ``epoch``, from 0."""
        return min(self.old_decay_slope * epoch, self.old_decay_max)


@dataclass
class Noised:
    """``m`` of this process's images, each at a noise level of its own.

    Attributes:
        images: ``(m,)`` rows of the rollout's tensors.
        draw: which of an image's noise levels this is.
        clean, latents: ``(m, ...)`` x_0 and x_t.
        timesteps: ``(m,)``.
        condition: m rows.
    """

    images: Tensor
    draw: int
    clean: Tensor
    latents: Tensor
    timesteps: Tensor
    condition: Condition


class ForwardProcess(Algorithm):
    """Takes an epoch's images through noise levels, and steps on what a member of the family says of them."""

    Config = ForwardProcessConfig
    rollout_needs = RolloutNeeds(min_images_per_prompt=2, trajectories=False, off_policy=True)
    snapshots = (OLD,)
    config: ForwardProcessConfig
    shared_noise = False  # whether a prompt's images get the same noise levels and noise

    @classmethod
    def check(cls, config: Any, num_prompts: int, images_per_prompt: int, num_steps: int) -> None:
        if config.updates_per_epoch > num_prompts:
            raise InputError(
                f"config.updates_per_epoch is {config.updates_per_epoch}, but an epoch has {num_prompts} prompts, "
                f"which they share; use config.updates_per_epoch={num_prompts} or fewer"
            )

    @abstractmethod
    def judge(self, advantages: Tensor) -> Tensor:
        """What an image's advantage, between -a and a, stands for in ``losses``: ``(images,)`` from ``(images,)``."""

    @abstractmethod
    def losses(self, at: Noised, judged: Tensor, predicted: Tensor, learner: Learner) -> Tensor:
        """The loss ``(m,)`` of a chunk of images ``judged`` ``(m,)`` with predicted x_0 ``(m, ...)``."""

    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        pairs = num_prompts * images_per_prompt * self.config.num_draws(num_steps)
        networks = 1 + self.other_networks() + (1 if self.config.kl_weight else 0)
        return Cost(forwards=networks * pairs, backwards=pairs, guided=self.config.guided)

    def other_networks(self) -> int:
        """Predictions that ``losses`` and ``prepare`` make beside the one that carries the gradient."""
        return 0

    def prepare(self, rollout: Rollout, learner: Learner, where: Tensor, judged: Tensor) -> Tensor:
        """What ``losses`` get as ``judged`` of a share of the images: ``(images,)``, or ``(images, draws)``."""
        return judged

    def update(self, rollout: Rollout, learner: Learner) -> dict[str, float]:
        config, draws = self.config, self.config.num_draws(rollout.num_steps)
        rewards, prompts = rollout.rewards.double(), rollout.prompt_ids()
        judged = self.judge(advantages(rewards, prompts, "group-mean", config.advantage_clip, smallest=1e-4))
        total, distance = 0.0, 0.0
        for where in shares(rollout, learner, config.updates_per_epoch):
            prepared = self.prepare(rollout, learner, where, judged)
            for at in noised(rollout, learner, draws, where=where, shared=self.shared_noise):
                predicted = self.predict(learner, at)
                of_chunk = prepared[at.images] if prepared.dim() == 1 else prepared[at.images, at.draw]
                losses = self.losses(at, of_chunk.to(predicted), predicted, learner)
                total += float(losses.detach().sum())
                if config.kl_weight:
                    away = self._reference_distance(learner, at, predicted)
                    losses = losses + config.kl_weight * away
                    distance += float(away.detach().sum())
                learner.backward(losses.sum() / (int(where.sum()) * draws))
            learner.step()
        decay = config.old_decay(rollout.epoch)
        learner.policy.blend_snapshot(OLD, decay)
        total, distance = learner.sum(torch.tensor([total, distance])).tolist()
        pairs = rollout.num_images * draws
        away_from_base = {"reference_distance": distance / pairs} if config.kl_weight else {}
        return {"surrogate": total / pairs, **away_from_base, "old_decay": decay}

    def predict(self, learner: Learner, at: Noised, weights: str = POLICY) -> Tensor:
        """Predicted x_0 ``(m, ...)`` with those weights."""
        policy, guided = learner.policy, self.config.guided
        return policy.predict_clean(at.latents, at.timesteps, at.condition, weights=weights, guided=guided)

    def _reference_distance(self, learner: Learner, at: Noised, predicted: Tensor) -> Tensor:
        with torch.no_grad():
            reference = self.predict(learner, at, REFERENCE)
        ours, theirs = (
            learner.policy.process.target_given(at.latents, clean, at.timesteps) for clean in (predicted, reference)
        )
        return (ours - theirs).square().flatten(1).mean(1)


def noised(
    rollout: Rollout, learner: Learner, draws: int, *, where: Tensor | None = None, shared: bool = False
) -> Iterator[Noised]:
    """This process's images, ``draws`` times, in chunks: the same for any number of processes and any chunk size.

    Args:
        where: ``(images,)`` bool; the others are left out.
        shared: whether the images of one prompt get the same noise levels and the same noise.
    """
    policy = learner.policy
    timesteps = policy.schedule.timesteps.cpu()[rollout.objective_steps]
    for chunk in learner.clean_chunks(rollout, where):
        keys = rollout.groups[chunk.images] if shared else chunk.images
        kind = "group" if shared else "image"
        levels = torch.stack([_spread(len(timesteps), draws, rollout, learner, kind, int(key)) for key in keys])
        for draw in range(draws):
            generators = [learner.generator("noise", kind, rollout.epoch, draw, int(key)) for key in keys]
            noise = torch.stack([torch.randn(chunk.latents.shape[1:], generator=g) for g in generators])
            noise, at = noise.to(chunk.latents), timesteps[levels[:, draw]].to(learner.device)
            latents = policy.process.add_noise(chunk.latents, noise, at)
            yield Noised(chunk.images, draw, chunk.latents, latents, at, chunk.condition)


def goodness(advantages: Tensor, clip: float) -> Tensor:
    """r ``(images,)`` in [0, 1] of advantages between -clip and clip: 1/2 for a prompt's average image."""
    return advantages / (2 * clip) + 0.5


def normalised_error(predicted: Tensor, clean: Tensor) -> Tensor:
    """e ``(m,)`` of predicted x_0 ``(m, ...)``."""
    difference = (predicted - clean).flatten(1)
    weight = difference.detach().abs().mean(1).clamp(min=SMALLEST_WEIGHT)
    return difference.square().mean(1) / weight


def shares(rollout: Rollout, learner: Learner, count: int) -> Iterator[Tensor]:
    """``count`` shares of the epoch's prompts in random order: ``(images,)`` bool each, prompts never divided."""
    order = torch.randperm(len(rollout.prompts), generator=learner.generator("shares", rollout.epoch))
    for groups in order.tensor_split(count):
        yield torch.isin(rollout.groups, groups)


def _spread(num_levels: int, draws: int, rollout: Rollout, learner: Learner, kind: str, key: int) -> Tensor:
    """``draws`` numbers of noise levels ``(draws,)``, one from each equal stretch of them, in random order."""
    generator = learner.generator("noise levels", kind, rollout.epoch, key)
    edges = torch.linspace(0, num_levels, draws + 1)
    positions = edges[:-1] + torch.rand(draws, generator=generator) * (edges[1:] - edges[:-1])
    return positions.long().clamp(max=num_levels - 1)[torch.randperm(draws, generator=generator)]
