"""AWM: advantage-weighted matching (arXiv 2509.25050), and EPG as a weighting of it (arXiv 2602.04663).

A policy gradient whose log-prob is the error on the forward process: it needs neither trajectories nor a sampler that
draws noise. With L = -e, at the same noise levels and noise under the policy and under the policy of the epoch's start
(old),

    loss = mean max[ -A rho, -A clip(rho, 1 - c, 1 + c) ] + k mean (eps_theta - eps_ref)^2,   rho = exp(L - L_old)
    A    = clip((r_i - mean of the prompt) / (std of the batch + 1e-4), -a, a) / a

The weighting of the noise levels is in e, a function of m = mean over dimensions of (v_theta - v)^2 with v = eps - x_0:
the squared error of x_0 over t^2, t the noise's share.

    huber       e = t ((m + 1e-10)^(1/4) - 1e-10^(1/4)) / (1/4)    AWM's code
    velocity    e = m                                              AWM's equation
    normalised  e of `rfbench_algorithms.forward_process`          EPG's code, "adaptive"

At one optimiser step an epoch rho is 1, and the gradient that of A e.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from rfbench.core.learner import Learner
from rfbench.suite.settings import search
from rfbench_algorithms.forward_process import OLD, ForwardProcess, ForwardProcessConfig, Noised, normalised_error
from rfbench_algorithms.policy_gradient import clipped_surrogate

TINY = 1e-10  # of the Huber-like root


class AWMConfig(ForwardProcessConfig):
    """Settings of AWM."""

    weighting: Literal["huber", "velocity", "normalised"] = Field("huber", description="of the noise levels")
    clip_range: float = Field(
        1.0,
        gt=0,
        description="c of the ratio, which one step an epoch never meets",
        json_schema_extra=search(1e-3, 1.0),
    )
    draws: int | None = Field(
        6, ge=1, description="noise levels at which an image is judged, spread over the sampler's steps; null: all"
    )
    kl_weight: float = Field(
        1e-3, ge=0, description="k, of the squared distance to the reference's network output, a mean over dimensions"
    )
    old_decay_slope: float = Field(0.0, ge=0, description="0: old is the policy of the epoch's start")


def matching_error(predicted: Tensor, clean: Tensor, noise_share: Tensor, weighting: str) -> Tensor:
    """e ``(m,)`` of predicted x_0 ``(m, ...)`` at noise shares ``(m,)``."""
    if weighting == "normalised":
        return normalised_error(predicted, clean)
    velocity = (predicted - clean).square().flatten(1).mean(1) / noise_share.square()
    if weighting == "velocity":
        return velocity
    return noise_share * ((velocity + TINY) ** 0.25 - TINY**0.25) / 0.25


class AWM(ForwardProcess):
    """Policy gradient with the forward process's error for a log-prob."""

    Config = AWMConfig
    config: AWMConfig

    def judge(self, advantages: Tensor) -> Tensor:
        return advantages / self.config.advantage_clip

    def losses(self, at: Noised, judged: Tensor, predicted: Tensor, learner: Learner) -> Tensor:
        share, weighting = learner.policy.process.noise_share(at.timesteps), self.config.weighting
        errors = matching_error(predicted, at.clean, share, weighting)
        old = errors.detach()  # before the epoch's first step the policy is the old one
        if self.other_networks():
            old = matching_error(self.predict(learner, at, OLD), at.clean, share, weighting)
        return clipped_surrogate(-errors, -old, judged, self.config.clip_range)

    def other_networks(self) -> int:
        return 1 if self.config.updates_per_epoch > 1 or self.config.old_decay_slope else 0
