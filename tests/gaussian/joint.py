"""The analytic world by brute force: whole trajectories as one multivariate normal, without its closed forms."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from rfbench.core.schedule import Schedule
from rfbench.worlds.gaussian import world

STD = 0.7
BETA = 0.3  # reward units per nat


def denoiser(latents: Tensor, mean: Tensor, alpha_bar: Tensor) -> Tensor:
    """E[eps | x_t] of data N(mean, STD^2 I) by conditioning the joint normal of (eps, x_t), dimension by dimension."""
    covariance = (1 - alpha_bar).sqrt()  # of eps and x_t
    variance = alpha_bar * STD**2 + (1 - alpha_bar)
    return covariance / variance * (latents - alpha_bar.sqrt() * mean)


def velocity(latents: Tensor, mean: Tensor, share: Tensor) -> Tensor:
    """The same of E[eps - x_0 | x_s]."""
    covariance = share - (1 - share) * STD**2  # of eps - x_0 and x_s
    variance = (1 - share) ** 2 * STD**2 + share**2
    return covariance / variance * (latents - (1 - share) * mean) - mean


def output(latents: Tensor, mean: Tensor, timestep: Tensor) -> Tensor:
    """What the exact network says; a flow's timesteps are shares of noise, a diffusion's whole numbers."""
    if timestep.is_floating_point():
        return velocity(latents, mean, timestep)
    return denoiser(latents, mean, world.diffusion().alphas_cumprod[timestep])


def trajectories(
    schedule: Schedule,
    mean: Tensor,
    offsets: Tensor,
    gains: Tensor | None = None,
    log_scales: Tensor | None = None,
    start: Tensor | None = None,
) -> MultivariateNormal:
    """The joint law of (x_T, ..., x_0) for data of ``mean`` ``(dimensions,)``.

    Args:
        offsets: added to each step's mean, ``(steps, dimensions)``.
        gains: multiplies x_t and is added to each step's mean, ``(steps,)``; none by default.
        log_scales: of each step's sigma, ``(steps,)``; none by default.
        start: mean of x_T ``(dimensions,)``; 0 by default.
    """
    steps, dimensions = offsets.shape
    gains = torch.zeros(steps) if gains is None else gains
    log_scales = torch.zeros(steps) if log_scales is None else log_scales
    eye = torch.eye(dimensions, dtype=torch.float64)
    # x_k = level_k + root_k z with z ~ N(0, I) of x_T and all steps: the trajectory is affine in z
    level = torch.zeros(dimensions, dtype=torch.float64) if start is None else start
    root = torch.cat([eye, torch.zeros(dimensions, steps * dimensions, dtype=torch.float64)], dim=1)
    levels, roots = [level], [root]
    for k in range(steps):
        at, weight = schedule.timesteps[k], schedule.output_weight[k]
        zero, one = torch.zeros(dimensions, dtype=torch.float64), torch.ones(dimensions, dtype=torch.float64)
        slope = schedule.latent_weight[k] + weight * output(one, zero, at)[0] + gains[k]
        level = slope * level + weight * output(zero, mean, at) + offsets[k]
        step = torch.zeros(dimensions, (steps + 1) * dimensions, dtype=torch.float64)
        step[:, (k + 1) * dimensions : (k + 2) * dimensions] = eye
        root = slope * root + schedule.sigma[k] * log_scales[k].exp() * step
        levels.append(level)
        roots.append(root)
    return MultivariateNormal(torch.cat(levels), scale_tril=torch.cat(roots))


def objective(policy: MultivariateNormal, reference: MultivariateNormal, direction: Tensor) -> Tensor:
    """E[w . x_0] - BETA KL(policy || reference), a scalar that carries gradient."""
    return policy.mean[-len(direction) :] @ direction - BETA * kl_divergence(policy, reference)
