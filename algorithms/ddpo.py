"""DDPO: Denoising Diffusion Policy Optimization, importance-sampled (Black et al., ICLR 2024, arXiv 2305.13301).

Each denoising step is an action and the image's reward is every step's return. With the ratio
rho_t = exp(L_t(theta) - L_t(old)) of a step, L_t averaged over the latent dimensions, the loss of an (image, step) is

    max[ -A rho_t, -A clip(rho_t, 1 - c, 1 + c) ],    A = clip((r - mean) / (std + 1e-6), -a, a)

averaged over images and steps. There is no KL term. The mean and standard deviation of the rewards are those of

    per-prompt     a running buffer of the prompt's latest rewards, this epoch's included, as published; until the
                   buffer holds ``min_count`` rewards, those of this epoch's whole batch
    group          this epoch's images of the same prompt (as GRPO's paper)
    group-mean     the mean is that of this epoch's images of the prompt, the standard deviation that of its whole batch
    batch          this epoch's whole batch

and without a standard deviation, A = r - mean in units of the reward and never clipped,

    group-centred  this epoch's images of the prompt
    leave-one-out  this epoch's other images of the prompt (as LOOP, arXiv 2503.00897)

The loop over the epoch and the advantages are shared with GRPO: `rfbench_algorithms.policy_gradient`.
"""

from __future__ import annotations

from torch import Tensor

from rfbench.core.learner import Chunk, Learner
from rfbench_algorithms.policy_gradient import Losses, PolicyGradient, PolicyGradientConfig, clipped_surrogate


class DDPOConfig(PolicyGradientConfig):
    """Settings of DDPO."""


class DDPO(PolicyGradient):
    """Clipped policy gradient on denoising steps."""

    Config = DDPOConfig
    config: DDPOConfig

    def losses(self, chunk: Chunk, advantages: Tensor, learner: Learner) -> Losses:
        log_probs = learner.log_probs(chunk)
        return Losses(clipped_surrogate(log_probs, chunk.log_probs_old, advantages, self.config.clip_range), log_probs)
