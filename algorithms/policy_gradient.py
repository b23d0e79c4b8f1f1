"""What clipped policy gradients on denoising steps share: the surrogate, the advantages, and the epoch's loop.

Each denoising step is an action and the image's reward is every step's return. With the ratio
rho_t = exp(L_t(theta) - L_t(old)) of a step, L_t averaged over the latent dimensions, an (image, step) counts

    max[ -A rho_t, -A clip(rho_t, 1 - c, 1 + c) ]

of which the loss is the mean, and beside it what a member of the family adds.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import chain
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.algorithm import Algorithm, Cost, RolloutNeeds
from rfbench.core.learner import Chunk, Learner
from rfbench.core.rollout import Rollout
from rfbench.errors import InputError
from rfbench.suite.settings import Settings, search
from rfbench_algorithms.advantages import PromptBuffers, advantages

ClipRange = Annotated[
    float,
    Field(
        gt=0,
        description="c of the ratio; to first order in nats per latent dimension",
        json_schema_extra=search(1e-4, 1e-2),
    ),
]
Whose = Annotated[
    Literal["per-prompt", "group", "group-mean", "group-centred", "leave-one-out", "batch"],
    Field(
        description="whose mean and std; group-mean: the prompt's mean with the batch's std; group-centred and "
        "leave-one-out: the mean of the prompt's images, or of its others, without a std"
    ),
]
SharedUpdates = Annotated[
    int,
    Field(
        ge=1, description="optimiser steps per pass, each on its share of the images", json_schema_extra=search(1, 4)
    ),
]
OF_GROUPS = ("group", "group-mean", "group-centred", "leave-one-out")  # advantages that need two images of a prompt


class PolicyGradientConfig(Settings):
    """What the settings of `PolicyGradient` have in common."""

    clip_range: ClipRange = 1e-4
    advantage: Whose = "per-prompt"
    advantage_clip: float = Field(5.0, gt=0, description="a, in standard deviations of the reward")
    buffer_size: int = Field(32, ge=2, description="rewards kept for each prompt")
    min_count: int = Field(16, ge=2, description="rewards that a buffer must hold before its statistics are used")
    updates_per_epoch: SharedUpdates = 1
    passes: Annotated[int, Field(ge=1)] | None = Field(
        None, description="times that an epoch's images are gone through, in another order each time; one by default"
    )

    @property
    def num_passes(self) -> int:
        return self.passes or 1


class Losses(NamedTuple):
    """What a chunk of ``m`` (image, step) pairs comes to, ``(m,)`` each."""

    losses: Tensor  # with gradient
    log_probs: Tensor
    logged: tuple[Tensor, ...] = ()  # quantities of the names in ``PolicyGradient.logged``


def clipped_surrogate(log_probs: Tensor, log_probs_old: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """PPO's loss ``(m,)`` (Schulman et al. 2017, eq. 7, negated) from three ``(m,)``."""
    ratio = (log_probs - log_probs_old).exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip_range, 1 + clip_range))


class PolicyGradient(Algorithm):
    """Takes an epoch's images in shares, and steps on what a member of the family says of their steps."""

    Config = PolicyGradientConfig
    rollout_needs = RolloutNeeds()
    config: PolicyGradientConfig

    def __init__(self, config: PolicyGradientConfig) -> None:
        super().__init__(config)
        self._buffers = PromptBuffers(config.buffer_size, config.min_count)

    @property
    def clip_range(self) -> float | None:
        return self.config.clip_range

    @property
    def largest_start_error(self) -> float | None:
        is_one_step = self.config.updates_per_epoch * self.config.num_passes == 1
        return None if is_one_step else super().largest_start_error

    @property
    def smallest_std(self) -> float:
        """What is added to a standard deviation that rewards are divided by."""
        return 1e-6

    @property
    def logged(self) -> tuple[str, ...]:
        """Names of what ``losses`` give to log."""
        return ()

    @property
    def networks(self) -> int:
        """Networks that ``losses`` ask about each pair."""
        return 1

    @abstractmethod
    def losses(self, chunk: Chunk, advantages: Tensor, learner: Learner) -> Losses:
        """What a chunk of ``m`` pairs with advantages ``(m,)`` comes to."""

    def counted(self, advantages: Tensor) -> Tensor:
        """``(images,)`` bool: the images that the loss is a mean over, told by their advantages ``(images,)``."""
        return torch.ones_like(advantages, dtype=torch.bool)

    @classmethod
    def check(cls, config: Any, num_prompts: int, images_per_prompt: int, num_steps: int) -> None:
        num_images = num_prompts * images_per_prompt
        if config.advantage in OF_GROUPS and images_per_prompt == 1:
            raise InputError(
                f"config.advantage is {config.advantage!r}, but images_per_prompt is 1: one reward has no spread, and "
                "every advantage would be 0; use images_per_prompt=2 or more, or config.advantage=batch"
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
        pairs = num_prompts * images_per_prompt * num_steps * self.config.num_passes
        return Cost(forwards=self.networks * pairs, backwards=pairs)

    def update(self, rollout: Rollout, learner: Learner) -> dict[str, float]:
        advantages, passes = self.image_advantages(rollout), self.config.num_passes
        counted = self.counted(advantages)
        log_ratios = torch.zeros_like(rollout.log_probs)
        totals = dict.fromkeys(("loss", *self.logged), 0.0)
        generator = learner.generator("ddpo", rollout.epoch)
        orders = [torch.randperm(rollout.num_images, generator=generator) for _ in range(passes)]
        shares = [order[counted[order]].tensor_split(self.config.updates_per_epoch) for order in orders]
        for batch in chain(*shares):
            in_batch = torch.zeros(rollout.num_images, rollout.num_steps, dtype=torch.bool)
            in_batch[batch] = True
            for chunk in learner.chunks(rollout, where=in_batch):
                found = self.losses(chunk, advantages[chunk.images].to(chunk.log_probs_old), learner)
                learner.backward(found.losses.sum() / in_batch.sum())
                for name, values in zip(totals, (found.losses, *found.logged), strict=True):
                    totals[name] += float(values.detach().sum())
                log_ratios[chunk.index] = (found.log_probs - chunk.log_probs_old).detach().cpu()
            learner.step()
        ratios = learner.sum(log_ratios)[counted].double().exp()
        count = max(ratios.numel(), 1)
        sums = learner.sum(torch.tensor([*totals.values()])).tolist()
        return {
            **{name: value / (count * passes) for name, value in zip(totals, sums, strict=True)},
            "clip_fraction": float(((ratios - 1).abs() > self.config.clip_range).double().sum()) / count,
            "ratio_std": float(ratios.std()) if count > 1 else 0.0,
            "advantage_abs_mean": float(advantages.abs().mean()),
        }

    def image_advantages(self, rollout: Rollout) -> Tensor:
        """``(images,)``, of all of a prompt's images in the epoch or, with buffers, of its latest ones."""
        rewards, config = rollout.rewards.double(), self.config
        if config.advantage == "per-prompt":
            prompts = [rollout.prompts[group] for group in rollout.groups.tolist()]
            return self._buffers.add(rewards, prompts).standardise(rewards, config.advantage_clip, self.smallest_std)
        return advantages(rewards, rollout.prompt_ids(), config.advantage, config.advantage_clip, self.smallest_std)

    def state_dict(self) -> dict[str, Any]:
        return {"buffers": self._buffers.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._buffers.load_state_dict(state["buffers"])
