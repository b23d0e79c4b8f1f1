"""A replay of denoising transitions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rfbench.core.learner import Learner
from rfbench.core.rollout import Rollout


@dataclass
class Transitions:
    """``n`` transitions on the CPU."""

    prompts: list[str]
    epochs: Tensor  # (n,) when sampled
    steps: Tensor  # (n,) denoising steps
    folds: Tensor  # (n,) the fold of their images
    rewards: Tensor  # (n,) their images'
    prompt_means: Tensor  # (n,) the mean reward of their prompts in their epoch
    log_probs: Tensor  # (n,) when sampled
    latents: Tensor  # (n, 2, ...) x_t and x_{t-1}

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, rows: Tensor) -> Transitions:
        tensors = {name: value[rows] for name, value in vars(self).items() if name != "prompts"}
        return Transitions([self.prompts[row] for row in rows.tolist()], **tensors)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """The rows ``(count,)`` of a uniform sample with replacement."""
        return torch.randint(len(self), (count,), generator=generator)

    def join(self, newer: Transitions, size: int) -> Transitions:
        """The last ``size`` of both."""
        tensors = {n: torch.cat([v, getattr(newer, n)]) for n, v in vars(self).items() if n != "prompts"}
        joined = Transitions([*self.prompts, *newer.prompts], **tensors)
        return joined.take(torch.arange(len(joined))[-size:])


def newest(rollout: Rollout, learner: Learner, size: int, num_folds: int) -> Transitions:
    """``size`` of the rollout's transitions at random, or all if there are fewer; alike in every process.

    The images take the folds in turn, so that those of one prompt are shared out among them.
    """
    assert rollout.latents is not None
    order = torch.randperm(rollout.log_probs.numel(), generator=learner.generator("dpok", "replay", rollout.epoch))
    images, columns = order[:size] // rollout.num_steps, order[:size] % rollout.num_steps
    steps = rollout.objective_steps[columns]
    here = (images >= rollout.local.start) & (images < rollout.local.stop)
    rows = images[here] - rollout.local.start
    latents = torch.zeros(len(images), 2, *rollout.latents.shape[2:])
    latents[here] = torch.stack([rollout.latents[rows, steps[here]], rollout.latents[rows, steps[here] + 1]], dim=1)
    return Transitions(
        prompts=[rollout.prompts[group] for group in rollout.groups[images].tolist()],
        epochs=torch.full_like(images, rollout.epoch),
        steps=steps,
        folds=images % num_folds,
        rewards=rollout.rewards[images],
        prompt_means=rollout.group_means()[images],
        log_probs=rollout.log_probs[images, columns],
        latents=learner.sum(latents),
    )
