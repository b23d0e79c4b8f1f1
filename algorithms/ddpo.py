"""DDPO: Denoising Diffusion Policy Optimization, importance-sampled (Black et al., ICLR 2024, arXiv 2305.13301).

Each denoising step is an action and the image's reward is every step's return. With the ratio
rho_t = exp(L_t(theta) - L_t(old)) of a step, L_t averaged over the latent dimensions, the loss of an (image, step) is

    max[ -A rho_t, -A clip(rho_t, 1 - c, 1 + c) ],    A = clip((r - mean) / (std + 1e-6), -a, a)

averaged over images and steps. There is no KL term. The mean and standard deviation of the rewards are those of

    per-prompt   a running buffer of the prompt's latest rewards, this epoch's included, as published; until the buffer
                 holds ``min_count`` rewards, those of this epoch's whole batch
    group        this epoch's images of the same prompt (as GRPO does)
    group-mean   the mean is that of this epoch's images of the prompt, the standard deviation that of its whole batch
    batch        this epoch's whole batch
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.algorithm import Algorithm, Cost, RolloutNeeds
from rfbench.core.learner import Learner
from rfbench.core.rollout import Rollout
from rfbench.errors import InputError
from rfbench.suite.settings import Settings, search
from rfbench_algorithms.advantages import PromptBuffers, Statistics, batch_statistics, group_statistics


class DDPOConfig(Settings):
    """Settings of DDPO."""

    clip_range: float = Field(
        1e-4,
        gt=0,
        description="c of the ratio; to first order in nats per latent dimension",
        json_schema_extra=search(1e-4, 1e-2),
    )
    advantage: Literal["per-prompt", "group", "group-mean", "batch"] = Field(
        "per-prompt", description="whose mean and std; group-mean: the prompt's mean with the batch's std"
    )
    advantage_clip: float = Field(5.0, gt=0, description="a, in standard deviations of the reward")
    buffer_size: int = Field(32, ge=2, description="rewards kept for each prompt")
    min_count: int = Field(16, ge=2, description="rewards that a buffer must hold before its statistics are used")
    updates_per_epoch: int = Field(
        1,
        ge=1,
        description="optimiser steps per epoch, each on its share of the images",
        json_schema_extra=search(1, 4),
    )


def ddpo_loss(log_probs: Tensor, log_probs_old: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """The clipped surrogate of (image, step) pairs, ``(m,)`` from three ``(m,)``."""
    ratio = (log_probs - log_probs_old).exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip_range, 1 + clip_range))


class DDPO(Algorithm):
    """Clipped policy gradient on denoising steps."""

    Config = DDPOConfig
    rollout_needs = RolloutNeeds()
    config: DDPOConfig

    def __init__(self, config: DDPOConfig) -> None:
        super().__init__(config)
        self._buffers = PromptBuffers(config.buffer_size, config.min_count)

    @property
    def clip_range(self) -> float | None:
        return self.config.clip_range

    @property
    def largest_start_error(self) -> float | None:
        return None if self.config.updates_per_epoch == 1 else super().largest_start_error

    @classmethod
    def check(cls, config: DDPOConfig, num_prompts: int, images_per_prompt: int, num_steps: int) -> None:
        num_images = num_prompts * images_per_prompt
        if config.advantage == "group" and images_per_prompt == 1:
            raise InputError(
                "config.advantage is 'group', but images_per_prompt is 1: one reward has no spread, and every "
                "advantage would be 0; use images_per_prompt=2 or more, or config.advantage=batch"
            )
        if config.advantage == "batch" and num_images == 1:
            raise InputError(
                "config.advantage is 'batch', but an epoch has 1 image: every advantage would be 0; use 2 or more "
                "reward queries per epoch"
            )
        if config.advantage == "per-prompt" and config.min_count > config.buffer_size:
            raise InputError(
                f"config.min_count is {config.min_count}, but config.buffer_size {config.buffer_size}: no buffer would "
                f"ever be used; use config.min_count={config.buffer_size} or less, or config.advantage=batch"
            )
        if config.updates_per_epoch > num_images:
            raise InputError(
                f"config.updates_per_epoch is {config.updates_per_epoch}, but an epoch has {num_images} images, which "
                f"they share; use config.updates_per_epoch={num_images} or fewer"
            )

    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        pairs = num_prompts * images_per_prompt * num_steps
        return Cost(forwards=pairs, backwards=pairs)

    def update(self, rollout: Rollout, learner: Learner) -> dict[str, float]:
        advantages = self._advantages(rollout)
        log_ratios = torch.zeros_like(rollout.log_probs)
        order = torch.randperm(rollout.num_images, generator=learner.generator("ddpo", rollout.epoch))
        total_loss = 0.0
        for batch in order.tensor_split(self.config.updates_per_epoch):
            in_batch = torch.zeros(rollout.num_images, rollout.num_steps, dtype=torch.bool)
            in_batch[batch] = True
            for chunk in learner.chunks(rollout, where=in_batch):
                log_probs = learner.log_probs(chunk)
                advantage = advantages[chunk.images].to(log_probs)
                losses = ddpo_loss(log_probs, chunk.log_probs_old, advantage, self.config.clip_range)
                learner.backward(losses.sum() / in_batch.sum())
                total_loss += float(losses.detach().sum())
                log_ratios[chunk.index] = (log_probs - chunk.log_probs_old).detach().cpu()
            learner.step()
        log_ratios = learner.sum(log_ratios)
        ratios = log_ratios.double().exp()
        return {
            "loss": float(learner.sum(torch.tensor(total_loss))) / log_ratios.numel(),
            "clip_fraction": float(((ratios - 1).abs() > self.config.clip_range).double().mean()),
            "ratio_std": float(ratios.std()),
            "advantage_abs_mean": float(advantages.abs().mean()),
        }

    def _advantages(self, rollout: Rollout) -> Tensor:
        """``(images,)`` standardised and clipped rewards."""
        rewards = rollout.rewards.double()
        return self._statistics(rollout, rewards).standardise(rewards, self.config.advantage_clip)

    def _statistics(self, rollout: Rollout, rewards: Tensor) -> Statistics:
        batch, prompts = batch_statistics(rewards), rollout.prompt_ids()
        match self.config.advantage:
            case "batch":
                return batch
            case "group":
                return group_statistics(rewards, prompts)
            case "group-mean":
                return Statistics(group_statistics(rewards, prompts).mean, batch.std)
            case "per-prompt":
                return self._buffers.add(rewards, [rollout.prompts[group] for group in rollout.groups.tolist()])

    def state_dict(self) -> dict[str, Any]:
        return {"buffers": self._buffers.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._buffers.load_state_dict(state["buffers"])
