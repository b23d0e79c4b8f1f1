"""A value function of denoising transitions that does not know the rewards which it is subtracted from.

A network that was fitted to an image's own reward explains that reward, and the advantage loses what it should reward.
So each image belongs to one of k folds, and there are k networks: network f is fitted to the images outside of fold f,
and gives the values of those in it (cross-fitting: Chernozhukov et al. 2018, arXiv 1608.00060). A baseline that does
not depend on an image's own noise leaves the policy gradient unbiased.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class ValueNetwork(nn.Module):
    """V(inputs, t): an MLP whose layers are scaled, unit by unit, by an embedding of the denoising step."""

    def __init__(self, num_inputs: int, num_steps: int, generator: torch.Generator) -> None:
        super().__init__()
        sizes = [num_inputs, 256, 256, 256]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self.scales = nn.Embedding(num_steps, 3 * 256)
        self.head = nn.Linear(256, 1)
        for layer in self.layers:
            nn.init.xavier_normal_(layer.get_parameter("weight"), generator=generator)
            nn.init.zeros_(layer.get_parameter("bias"))
        nn.init.uniform_(self.scales.weight, generator=generator)
        nn.init.zeros_(self.head.weight)  # V starts as a constant
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Tensor, steps: Tensor) -> Tensor:
        """Values ``(m,)`` of inputs ``(m, num_inputs)`` at denoising steps ``(m,)``."""
        for layer, scale in zip(self.layers, self.scales(steps).chunk(3, dim=1), strict=True):
            inputs = (scale * layer(inputs)).relu()
        return self.head(inputs).squeeze(1)


class CrossFittedValue(nn.Module):
    """One ``ValueNetwork`` for each fold, fitted to standardised rewards by AdamW.

    Attributes:
        mean, std: what rewards are standardised by: those of the first rewards, for good, so that what the networks
            have learnt keeps its meaning.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, num_inputs: int, num_steps: int, num_folds: int, learning_rate: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(ValueNetwork(num_inputs, num_steps, generator) for _ in range(num_folds))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=learning_rate)

    def standardise_by(self, rewards: Tensor) -> None:
        """Takes mean and standard deviation from ``(n,)`` rewards; of equal ones the standard deviation stays 1."""
        self.mean.copy_(rewards.mean())
        if rewards.std(correction=0) > 0:
            self.std.copy_(rewards.std(correction=0))

    def forward(self, inputs: Tensor, steps: Tensor) -> Tensor:
        """Every network's values ``(folds, m)``, in units of the reward."""
        return self.mean + self.std * torch.stack([network(inputs, steps) for network in self.networks])

    def fit(self, inputs: Tensor, steps: Tensor, folds: Tensor, rewards: Tensor) -> None:
        """One optimiser step: every network's mean squared error on the images of the other folds."""
        errors = (self(inputs, steps) - rewards) / self.std
        others = folds != torch.arange(len(self.networks), device=folds.device)[:, None]
        loss = errors[others].square().sum() / (len(folds) * (len(self.networks) - 1))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def unseen(values: Tensor, folds: Tensor) -> Tensor:
    """Of every network's values ``(folds, m)``, those of the networks that are not fitted to the image, ``(m,)``."""
    return values.gather(0, folds[None])[0]


def baseline_quality(values: Tensor, folds: Tensor, rewards: Tensor, means: Tensor) -> dict[str, float]:
    """What the values are worth as a baseline of ``n`` transitions; nothing where all rewards are equal.

    Args:
        values: every network's, ``(folds, n)``.
        rewards, means: ``(n,)`` each transition's reward, and the mean reward of its prompt.

    Returns:
        ``value_error`` and ``value_error_fitted``: mean squared errors over the rewards' variance, of the networks that
        are not fitted to an image and of those that are. And where the images of a prompt differ, the correlation with
        r - mean, the best that a baseline can leave: ``advantage_correlation`` of r - V, ``constant_correlation`` of r.
    """
    values, rewards, means = values.double(), rewards.double(), means.double()
    variance, errors = float(rewards.var(correction=0)), (rewards - values).square()
    if variance == 0:
        return {}
    advantages, deviations = rewards - unseen(values, folds), rewards - means
    fitted = (errors.sum(0) - advantages.square()) / (len(values) - 1)
    quality = {
        "value_error": float(advantages.square().mean()) / variance,
        "value_error_fitted": float(fitted.mean()) / variance,
    }
    if float(deviations.var(correction=0)) > 1e-12 * variance:
        quality["advantage_correlation"] = _correlation(advantages, deviations)
        quality["constant_correlation"] = _correlation(rewards, deviations)
    return quality


def _correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])
