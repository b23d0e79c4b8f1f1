"""PRDP: Proximal Reward Difference Prediction (Deng et al., CVPR 2024, arXiv 2402.08714).

KL-regularised reward maximisation has the optimum pi*(x_0:T|c) = pi_ref(x_0:T|c) exp(r(x_0, c) / beta) / Z(c).
Z cancels between two trajectories i, j of one prompt, so pi* is the policy whose log-ratios predict their difference of
rewards:

    u_i - u_j = (r_i - r_j) / beta,    u = mean over steps of l_t,    l_t = L_t(theta) - L_t(ref)

with L_t the log-density of step t averaged over the latent dimensions. PRDP regresses on that for every pair of a
prompt, and keeps theta near the policy that sampled by also scoring the stepwise clipped l_t (eq. 19-21, App. G):

    max[ (u_i - u_j - (r_i - r_j)/beta)^2 , (u_i^clip - u_j^clip - (r_i - r_j)/beta)^2 ],
    l_t^clip = clip(l_t, l_t(old) - eps, l_t(old) + eps)

averaged over a prompt's pairs with r_i > r_j, then over the prompts. The loss depends on theta through the scalars
l_{i,t} alone. So its gradient is that of sum c_{i,t} L_{i,t}(theta), with c = dLoss/dl from a pass without gradient: it
is accumulated over chunks of (image, step) pairs, in memory that does not grow with the number of steps, and is exact.

At the policy that sampled, so for K = 1, no clip binds, and where no rewards tie c_{i,t} is, with B images of a prompt,

    -4 / (beta (B - 1)) (a_i - mean a of the prompt) / (prompts steps),    a = r - beta u

which is leave-one-out REINFORCE on the KL-shaped reward a.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.algorithm import Algorithm, Cost, RolloutNeeds
from rfbench.core.learner import Learner
from rfbench.core.rollout import Rollout
from rfbench.suite.settings import Settings, search


class PRDPConfig(Settings):
    """Settings of PRDP; log-ratios are in nats per latent dimension, averaged over steps."""

    beta: float = Field(
        3.0,
        gt=0,
        description="KL weight, in reward units per (nat per latent dimension and step)",
        json_schema_extra=search(1, 100),
    )
    clip_range: Annotated[float, Field(gt=0)] | Literal["off"] = Field(
        1e-3, description="eps of the stepwise clip, in nats per latent dimension; 'off' for none"
    )
    updates_per_epoch: int = Field(
        1, ge=1, description="K, gradient updates on each epoch's whole batch", json_schema_extra=search(1, 4)
    )


class PairLoss(NamedTuple):
    """The loss and what is worth logging of it; ``loss`` carries the gradient."""

    loss: Tensor  # scalar; 0 without a pair
    num_pairs: int
    num_ties: int  # pairs of one prompt with equal rewards, which are left out
    num_tied_prompts: int  # prompts without a pair, which contribute 0
    clipped_pairs: float  # share of the pairs that the clipped branch wins
    log_ratio_difference_rms: float  # rms of u_i - u_j over the pairs
    target_rms: float  # rms of (r_i - r_j) / beta over the pairs

    @property
    def anchor(self) -> float:
        """The KL term's size beside the reward's: rms of beta (u_i - u_j) over that of r_i - r_j; 0 without a pair."""
        return self.log_ratio_difference_rms / self.target_rms if self.num_pairs else 0.0


def prdp_loss(
    log_probs: Tensor,
    log_probs_old: Tensor,
    reference_log_probs: Tensor,
    rewards: Tensor,
    groups: Tensor,
    beta: float,
    clip_range: float | None,
) -> PairLoss:
    """The pair loss of a batch of trajectories.

    Args:
        log_probs, log_probs_old, reference_log_probs: L_t under theta, the sampling policy and the reference,
            ``(images, steps)``.
        rewards, groups: ``(images,)``; pairs are formed inside a group. As in App. G they are averaged within it, then
            over the groups; a group whose rewards all tie, which gives NaN there, counts as 0.
    """
    same_group = groups[:, None] == groups[None, :]
    i, j = torch.nonzero(same_group & (rewards[:, None] > rewards[None, :]), as_tuple=True)
    equal = same_group & (rewards[:, None] == rewards[None, :])
    num_ties = (int(equal.sum()) - len(groups)) // 2
    names, index = groups.unique(return_inverse=True)
    pairs = torch.bincount(index[i], minlength=len(names))  # (groups,)
    num_tied_prompts = int((pairs == 0).sum())
    if len(i) == 0:
        return PairLoss(0.0 * log_probs.sum(), 0, num_ties, num_tied_prompts, 0.0, 0.0, 0.0)
    target = (rewards[i] - rewards[j]) / beta
    u = (log_probs - reference_log_probs).mean(1)
    squared_error = (u[i] - u[j] - target).square()
    clipped_pairs = 0.0
    if clip_range is not None:
        clipped = log_probs.clamp(log_probs_old - clip_range, log_probs_old + clip_range)
        u_clip = (clipped - reference_log_probs).mean(1)
        clipped_error = (u_clip[i] - u_clip[j] - target).square()
        clipped_pairs = float((clipped_error > squared_error).double().mean())
        squared_error = torch.maximum(squared_error, clipped_error)
    difference = (u[i] - u[j]).detach()
    return PairLoss(
        (squared_error / pairs[index[i]]).sum() / len(pairs),
        len(i),
        num_ties,
        num_tied_prompts,
        clipped_pairs,
        float(difference.square().mean().sqrt()),
        float(target.square().mean().sqrt()),
    )


class PRDP(Algorithm):
    """Reward difference prediction with stepwise clipping, online."""

    Config = PRDPConfig
    rollout_needs = RolloutNeeds(min_images_per_prompt=2, reference_log_probs=True, off_policy=True)
    config: PRDPConfig

    @property
    def clip_range(self) -> float | None:
        return None if self.config.clip_range == "off" else self.config.clip_range

    @property
    def largest_start_error(self) -> float | None:
        return None if self.config.updates_per_epoch == 1 else super().largest_start_error

    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        pairs, updates = num_prompts * images_per_prompt * num_steps, self.config.updates_per_epoch
        return Cost(forwards=pairs * (2 * updates - 1), backwards=pairs * updates)

    def start_log_probs(self, rollout: Rollout, learner: Learner) -> Tensor:
        """``(images, steps)`` at the first update, which starts at the policy that sampled: they are known."""
        return rollout.log_probs

    def update(self, rollout: Rollout, learner: Learner) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for k in range(self.config.updates_per_epoch):
            log_probs = self.start_log_probs(rollout, learner) if k == 0 else learner.all_log_probs(rollout)
            pair_loss, coefficients = self._coefficients(rollout, log_probs)
            for chunk in learner.chunks(rollout, where=coefficients != 0):
                weights = coefficients[chunk.index].to(learner.device)
                learner.backward((weights * learner.log_probs(chunk)).sum())
            learner.step()
            if k == 0:
                metrics["first_loss"] = float(pair_loss.loss.detach())
            outside = (log_probs - rollout.log_probs).abs() > (self.clip_range or float("inf"))
            metrics["clip_fraction"] = float(outside.double().mean())
        return metrics | {
            "loss": float(pair_loss.loss.detach()),
            "pairs": pair_loss.num_pairs,
            "ties": pair_loss.num_ties,
            "tied_prompts": pair_loss.num_tied_prompts,
            "clipped_pairs": pair_loss.clipped_pairs,
            "log_ratio_difference_rms": pair_loss.log_ratio_difference_rms,
            "target_rms": pair_loss.target_rms,
            "anchor": pair_loss.anchor,
        }

    def _coefficients(self, rollout: Rollout, log_probs: Tensor) -> tuple[PairLoss, Tensor]:
        """The loss, and dLoss/dl ``(images, steps)``, in float64: differences of nearly equal numbers."""
        assert rollout.reference_log_probs is not None
        log_ratios = log_probs.to(torch.float64, copy=True).requires_grad_()
        pair_loss = prdp_loss(
            log_ratios,
            rollout.log_probs.double(),
            rollout.reference_log_probs.double(),
            rollout.rewards.double(),
            rollout.groups,
            self.config.beta,
            self.clip_range,
        )
        pair_loss.loss.backward()
        assert log_ratios.grad is not None
        return pair_loss, log_ratios.grad
