"""The denoising chain as tensors: coefficients of every step, the step's mean, and the log-density of a step.

A step's mean is linear in the latent and the network's output, whatever the sampler (`rfbench.core.noising`). So a
chain is a few vectors over the denoising steps, computed once, in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rfbench.suite.suite import Window


@dataclass(frozen=True)
class Schedule:
    """A chain of denoising steps x_T -> ... -> x_0; step ``k`` maps ``latents[k]`` to ``latents[k + 1]``.

    Attributes:
        timesteps: the network's timestep at each step, ``(steps,)``, decreasing.
        latent_weight, output_weight: the step's mean is ``latent_weight * x_t + output_weight * output``, with the
            network's output (the noise or the velocity, as the process says), ``(steps,)`` each.
        sigma: the step's standard deviation, ``(steps,)``; 0 marks a deterministic step, which has no density.
        ode_latent_weight, ode_output_weight: the weights of the step between the same noise levels that draws none.
        initial_std: standard deviation of x_T, a scalar.
        objective_steps: the steps that carry a gradient, int64, increasing. Where no step has noise, those at whose
            noise levels an objective without trajectories may judge images.
    """

    timesteps: Tensor
    latent_weight: Tensor
    output_weight: Tensor
    sigma: Tensor
    ode_latent_weight: Tensor
    ode_output_weight: Tensor
    initial_std: Tensor
    objective_steps: Tensor

    @property
    def num_steps(self) -> int:
        return len(self.timesteps)

    def to(self, device: torch.device) -> Schedule:
        return Schedule(**{name: value.to(device) for name, value in vars(self).items()})

    def windowed(self, start: int, size: int) -> Schedule:
        """The chain with noise in ``size`` steps from ``start`` on alone; the others become those that draw none.

        The steps of the window are the same as before, so is what a network learns from them.
        """
        step = torch.arange(self.num_steps, device=self.sigma.device)
        inside = (step >= start) & (step < start + size)
        return replace(
            self,
            latent_weight=torch.where(inside, self.latent_weight, self.ode_latent_weight),
            output_weight=torch.where(inside, self.output_weight, self.ode_output_weight),
            sigma=torch.where(inside, self.sigma, torch.zeros_like(self.sigma)),
            objective_steps=self.objective_steps[inside[self.objective_steps]],
        )

    def mean(self, latents: Tensor, output: Tensor, steps: Tensor) -> Tensor:
        """Mean of p(x_{t-1} | x_t) for latents ``(m, ...)``; ``steps`` ``(m,)`` may differ per row."""
        latent_weight, output_weight = (
            per_row(self.latent_weight, steps, latents),
            per_row(self.output_weight, steps, latents),
        )
        return latent_weight * latents + output_weight * output


def window_start(window: Window, schedule: Schedule, epoch: int, generator: torch.Generator) -> int:
    """The first step of ``epoch``'s window; ``generator`` is of that epoch. Windows hold objective steps alone."""
    starts = len(schedule.objective_steps) - window.size + 1
    if window.moves == "forward":
        return epoch // window.every % starts
    return int(torch.randint(min(starts, max(schedule.num_steps // 2, 1)), (), generator=generator))


def per_row(coefficients: Tensor, steps: Tensor, like: Tensor) -> Tensor:
    """``coefficients[steps]`` in the dtype of ``like`` ``(m, ...)``, shaped to multiply its rows."""
    return coefficients[steps].to(like.dtype).view(-1, *[1] * (like.dim() - 1))


def log_density(latents: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Log-density ``(m,)`` of ``latents`` ``(m, ...)`` under N(mean, sigma^2), **averaged over the latent dimensions**.

    The one unit of every beta, KL and clip range in rfbench: nats per latent dimension. ``sigma`` ``(m,)`` is positive.
    """
    sigma = sigma.to(mean.dtype).view(-1, *[1] * (mean.dim() - 1))
    squared = ((latents - mean) / sigma).square()
    constant = sigma.log() + 0.5 * math.log(2 * math.pi)
    return (-0.5 * squared - constant).flatten(1).mean(1)


def kl_divergence(mean: Tensor, reference_mean: Tensor, sigma: Tensor) -> Tensor:
    """KL(N(mean, sigma^2) || N(reference_mean, sigma^2)) in nats, summed over the latent dimensions, ``(m,)``."""
    squared = (mean - reference_mean).square().flatten(1).sum(1)
    return squared / (2 * sigma.to(mean.dtype).square())
