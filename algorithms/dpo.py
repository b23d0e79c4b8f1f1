"""DPO: online Diffusion-DPO, the best against the worst image of every prompt (Wallace et al. 2024, arXiv 2311.12908).

Of an epoch's images of a prompt the one with the highest reward (w) is preferred to the one with the lowest (l). At the
same noise levels and noise for both,

    loss = -log sigmoid( -(beta / 2) [ (e_w - e_w^ref) - (e_l - e_l^ref) ] ),
    e    = mean over dimensions of (eps_theta(x_t, t, c) - eps)^2

averaged over prompts and noise levels; eps stands for the noise, or whatever else the base model's network predicts.
Prompts whose images all have one reward say nothing and are left out. Online, as in verl-omni, Flow-Factory and
flow_grpo: the pairs are the policy's own of this epoch.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from rfbench.core.algorithm import Algorithm, Cost, RolloutNeeds
from rfbench.core.learner import Learner
from rfbench.core.policy import POLICY, REFERENCE
from rfbench.core.rollout import Rollout
from rfbench.suite.settings import search
from rfbench_algorithms.forward_process import DrawsConfig, Noised, noised


class DPOConfig(DrawsConfig):
    """Settings of DPO; a pair is judged at the same noise levels."""

    beta: float = Field(
        2000.0,
        gt=0,
        description="how sharply a difference of errors counts, per squared unit of what the network predicts",
        json_schema_extra=search(100.0, 10000.0),
    )


def dpo_loss(better: Tensor, worse: Tensor, beta: float) -> Tensor:
    """The loss ``(m,)`` of e - e^ref of the preferred and of the other images, ``(m,)`` each."""
    return -logsigmoid(-(beta / 2) * (better - worse))


class DPO(Algorithm):
    """Preference of the best over the worst image of each prompt."""

    Config = DPOConfig
    rollout_needs = RolloutNeeds(min_images_per_prompt=2, trajectories=False, off_policy=True)
    config: DPOConfig

    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        pairs = 2 * num_prompts * self.config.num_draws(num_steps)
        return Cost(forwards=2 * pairs, backwards=pairs, guided=self.config.guided)

    def update(self, rollout: Rollout, learner: Learner) -> dict[str, float]:
        draws = self.config.num_draws(rollout.num_steps)
        best, worst = extremes(rollout.rewards, rollout.groups)
        count = int(best.sum())
        total = right = 0.0
        pairs = zip(
            noised(rollout, learner, draws, where=best, shared=True),
            noised(rollout, learner, draws, where=worst, shared=True),
            strict=True,
        )
        for better, worse in pairs:  # the same prompts, in the same order
            advances = [self._advance(learner, at) for at in (better, worse)]
            losses = dpo_loss(advances[0], advances[1], self.config.beta)
            learner.backward(losses.sum() / (count * draws))
            total += float(losses.detach().sum())
            right += float((advances[0] < advances[1]).sum())
        if count:
            learner.step()
        else:
            learner.skip_update()
        total, right = learner.sum(torch.tensor([total, right])).tolist()
        scale = max(count * draws, 1)
        return {"preferences": count, "loss": total / scale, "preferences_kept": right / scale}

    def _advance(self, learner: Learner, at: Noised) -> Tensor:
        """e - e^ref ``(m,)``."""
        policy = learner.policy
        target = policy.process.target_given(at.latents, at.clean, at.timesteps)

        def error(weights: str) -> Tensor:
            guided = self.config.guided
            output = policy.predict(at.latents, at.timesteps, at.condition, weights=weights, guided=guided)
            return (output - target).square().flatten(1).mean(1)

        with torch.no_grad():
            reference = error(REFERENCE)
        return error(POLICY) - reference


def extremes(rewards: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """``(images,)`` bool each: the first best and the first worst image of every group whose rewards differ."""
    best, worst = torch.zeros(len(rewards), dtype=torch.bool), torch.zeros(len(rewards), dtype=torch.bool)
    for group in groups.unique():
        members = torch.nonzero(groups == group).flatten()
        if rewards[members].max() > rewards[members].min():
            best[members[rewards[members].argmax()]] = True
            worst[members[rewards[members].argmin()]] = True
    return best, worst
