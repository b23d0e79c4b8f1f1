"""GRPO: group-relative policy optimisation of denoising steps (Flow-GRPO, Liu et al. 2025, arXiv 2505.05470).

DDPO with advantages within a prompt's images, and a KL term in the loss. With mu_t the mean of a step and sigma_t its
standard deviation, the loss of an (image, step) is

    max[ -A rho_t, -A clip(rho_t, 1 - c, 1 + c) ] + beta KL_t,      KL_t = mean over dimensions of
    A = clip((r - mean of the prompt) / (std + 1e-4), -a, a)               (mu_t(theta) - mu_t(ref))^2 / (2 sigma_t^2)

averaged over the images whose A is not 0, and their steps. KL_t is that of the two steps, in nats per latent dimension.
The standard deviation is the whole batch's by default, as the official code has it (``advantage = "group-mean"``), or
the prompt's, as the paper's equation and DanceGRPO (arXiv 2505.07818) have it (``"group"``).

Flow-GRPO-Fast and MixGRPO (arXiv 2507.21802) draw noise in a window of steps alone and train on it; the other steps are
deterministic. The window belongs to the sampler, so that any algorithm on trajectories can have it:

    [algorithms.grpo.sampler.window]
    size = 2
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rfbench.core.learner import Chunk, Learner
from rfbench.core.schedule import kl_divergence
from rfbench.suite.settings import search
from rfbench_algorithms.policy_gradient import (
    Losses,
    PolicyGradient,
    PolicyGradientConfig,
    Whose,
    clipped_surrogate,
)

ROUNDING = 1e-8  # an advantage of this size is 0: the mean of equal rewards may differ from them by their last bit


class GRPOConfig(PolicyGradientConfig):
    """Settings of GRPO."""

    advantage: Whose = "group-mean"
    smallest_std: float = Field(1e-4, ge=0, description="added to a standard deviation that rewards are divided by")
    kl_weight: float = Field(
        0.04,
        ge=0,
        description="beta, per nat and latent dimension of a step's KL from the reference",
        json_schema_extra=search(1e-3, 1.0),
    )
    drop_zero_advantages: bool = Field(
        True, description="leave out images that are as good as their prompt's mean; they cost no network call"
    )
    updates_per_epoch: int = Field(2, ge=1, description="optimiser steps per pass; not searched: as published, 2")


class GRPO(PolicyGradient):
    """Clipped policy gradient on denoising steps, relative to the prompt, with a KL in the loss."""

    Config = GRPOConfig
    config: GRPOConfig

    @property
    def smallest_std(self) -> float:
        return self.config.smallest_std

    @property
    def logged(self) -> tuple[str, ...]:
        return ("kl_per_dimension",) if self.config.kl_weight else ()

    def counted(self, advantages: Tensor) -> Tensor:
        return advantages.abs() > ROUNDING if self.config.drop_zero_advantages else super().counted(advantages)

    def losses(self, chunk: Chunk, advantages: Tensor, learner: Learner) -> Losses:
        weight = self.config.kl_weight
        found = learner.predict(chunk, reference=weight > 0)
        losses = clipped_surrogate(found.log_probs, chunk.log_probs_old, advantages, self.config.clip_range)
        if found.reference_mean is None:
            return Losses(losses, found.log_probs)
        kl = step_kl(found.mean, found.reference_mean, learner.policy.schedule.sigma[chunk.steps])
        return Losses(losses + weight * kl, found.log_probs, (kl,))

    @property
    def networks(self) -> int:
        return 2 if self.config.kl_weight else 1


def step_kl(mean: Tensor, reference_mean: Tensor, sigma: Tensor) -> Tensor:
    """KL_t ``(m,)`` in nats per latent dimension, of means ``(m, ...)`` and standard deviations ``(m,)``."""
    return kl_divergence(mean, reference_mean, sigma) / mean[0].numel()
