"""The denoising chain as tensors: coefficients of every step, the step's mean, and the log-density of a step.

Both samplers are one formula. DDIM (Song et al. 2021, eq. 12 and 16) with ``eta = 1`` is DDPM ancestral sampling (Ho et
al. 2020, eq. 6-7), apart from the alpha_bar that the last step arrives at; and its mean is linear in the latent and the
predicted noise. So a chain is four vectors over the denoising steps, computed once, in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rfbench.errors import InputError
from rfbench.suite.suite import Sampler, Window

SPACINGS = ("leading", "trailing", "linspace")


@dataclass(frozen=True)
class NoiseSchedule:
    """What a base model was trained with.

    Attributes:
        alphas_cumprod: alpha_bar of every training timestep, ``(training steps,)``, decreasing.
        prediction_type: what the network predicts, ``"epsilon"`` or ``"v_prediction"``.
        steps_offset: the timestep of the last denoising step under "leading" spacing (Stable Diffusion: 1).
        final_alpha_cumprod: alpha_bar that DDIM's last step arrives at (1 where ``set_alpha_to_one``).
        timestep_spacing: which timesteps a chain of few steps visits, one of ``SPACINGS`` (Lin et al. 2024, table 2).
    """

    alphas_cumprod: Tensor
    prediction_type: str = "epsilon"
    steps_offset: int = 0
    final_alpha_cumprod: float = 1.0
    timestep_spacing: str = "leading"


@dataclass(frozen=True)
class Schedule:
    """A chain of denoising steps x_T -> ... -> x_0; step ``k`` maps ``latents[k]`` to ``latents[k + 1]``.

    Attributes:
        timesteps: the network's timestep at each step, ``(steps,)`` int64, decreasing.
        alpha_bar: alpha_bar at each step's start, ``(steps,)``.
        latent_weight, noise_weight: the step's mean is ``latent_weight * x_t + noise_weight * eps``, ``(steps,)`` each.
        sigma: the step's standard deviation, ``(steps,)``; 0 marks a deterministic step, which has no density.
        objective_steps: the steps that carry a gradient, int64, increasing. Where no step has noise, those at whose
            noise levels an objective without trajectories may judge images.
    """

    timesteps: Tensor
    alpha_bar: Tensor
    latent_weight: Tensor
    noise_weight: Tensor
    sigma: Tensor
    objective_steps: Tensor

    @property
    def num_steps(self) -> int:
        return len(self.timesteps)

    def to(self, device: torch.device) -> Schedule:
        return Schedule(**{name: value.to(device) for name, value in vars(self).items()})

    def windowed(self, start: int, size: int) -> Schedule:
        """The chain with noise in ``size`` steps from ``start`` on alone; the others become DDIM's with eta 0.

        The steps of the window are the same as before, so is what a network learns from them.
        """
        step = torch.arange(self.num_steps, device=self.sigma.device)
        inside = (step >= start) & (step < start + size)
        alpha_bar_next = self.latent_weight.square() * self.alpha_bar
        direct = (1 - alpha_bar_next).clamp(min=0).sqrt() - self.latent_weight * (1 - self.alpha_bar).sqrt()
        return replace(
            self,
            noise_weight=torch.where(inside, self.noise_weight, direct),
            sigma=torch.where(inside, self.sigma, torch.zeros_like(self.sigma)),
            objective_steps=self.objective_steps[inside[self.objective_steps]],
        )

    def mean(self, latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """Mean of p(x_{t-1} | x_t) for latents ``(m, ...)``; ``steps`` ``(m,)`` may differ per row."""
        latent_weight, noise_weight = (
            per_row(self.latent_weight, steps, latents),
            per_row(self.noise_weight, steps, latents),
        )
        return latent_weight * latents + noise_weight * noise


def make_schedule(
    noise_schedule: NoiseSchedule, num_steps: int, *, kind: str = "ddpm", eta: float = 1.0, skip_last_steps: int = 0
) -> Schedule:
    """The chain of ``num_steps`` denoising steps, spaced as diffusers' DDPM and DDIM schedulers space them.

    Args:
        kind: ``"ddpm"`` (ancestral, fixed_small variance; the last step arrives at alpha_bar 1 with sigma 0) or
            ``"ddim"`` (the last step arrives at the model's ``final_alpha_cumprod``).
        eta: DDIM's noise scale; DDPM is eta 1, and 0 is deterministic.
        skip_last_steps: how many of the final steps the objective leaves out, besides those with sigma 0 where others
            have noise.
    """
    training_steps = len(noise_schedule.alphas_cumprod)
    if not 1 <= num_steps <= training_steps:
        raise InputError(f"sampler.num_steps is {num_steps}, but the model has {training_steps} training timesteps")
    if kind == "ddpm" and eta != 1.0:
        raise InputError(f"sampler.eta is {eta}, but ddpm is ancestral sampling (eta 1); use kind = 'ddim'")
    timesteps = _timesteps(noise_schedule, num_steps)
    if int(timesteps[0]) >= training_steps:
        raise InputError(
            f"sampler.num_steps is {num_steps}, but with steps_offset {noise_schedule.steps_offset} its first step is "
            f"timestep {int(timesteps[0])}, and the model's last is {training_steps - 1}; use "
            f"{training_steps - noise_schedule.steps_offset} or fewer"
        )
    if kind == "ddpm":  # each step arrives where the next begins, and the last at a clean image
        previous = torch.cat([timesteps[1:], torch.tensor([-1])])
    else:
        previous = timesteps - training_steps // num_steps

    alphas_cumprod = noise_schedule.alphas_cumprod.double()
    final = 1.0 if kind == "ddpm" else noise_schedule.final_alpha_cumprod
    alpha_bar = alphas_cumprod[timesteps]
    alpha_bar_previous = torch.where(
        previous >= 0, alphas_cumprod[previous.clamp(min=0)], torch.tensor(final, dtype=torch.float64)
    )
    # eq. 16; the posterior variance of DDPM when eta is 1
    variance = eta**2 * (1 - alpha_bar_previous) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_previous)
    # eq. 12: sqrt(ab_prev) x_0 + sqrt(1 - ab_prev - sigma^2) eps with x_0 = (x_t - sqrt(1 - ab) eps) / sqrt(ab)
    latent_weight = (alpha_bar_previous / alpha_bar).sqrt()
    direction = (1 - alpha_bar_previous - variance).clamp(min=0).sqrt()
    noise_weight = direction - latent_weight * (1 - alpha_bar).sqrt()

    sigma = variance.sqrt()
    step = torch.arange(num_steps)
    objective_steps = step[((sigma > 0) | (eta == 0)) & (step < num_steps - skip_last_steps)]
    if len(objective_steps) == 0:
        raise InputError(
            f"no denoising step is left for the objective: {num_steps} steps, skip_last_steps {skip_last_steps}, and "
            f"{int((sigma == 0).sum())} steps without noise; lower sampler.skip_last_steps or raise sampler.num_steps"
        )
    return Schedule(timesteps, alpha_bar, latent_weight, noise_weight, sigma, objective_steps)


def window_start(window: Window, schedule: Schedule, epoch: int, generator: torch.Generator) -> int:
    """The first step of ``epoch``'s window; ``generator`` is of that epoch. Windows hold objective steps alone."""
    starts = len(schedule.objective_steps) - window.size + 1
    if window.moves == "forward":
        return epoch // window.every % starts
    return int(torch.randint(min(starts, max(schedule.num_steps // 2, 1)), (), generator=generator))


def schedule_of(noise_schedule: NoiseSchedule, sampler: Sampler) -> Schedule:
    """The chain that a suite's sampler makes of a model's noise schedule."""
    return make_schedule(
        noise_schedule,
        sampler.num_steps,
        kind=sampler.kind,
        eta=sampler.eta,
        skip_last_steps=sampler.skip_last_steps,
    )


def _timesteps(noise_schedule: NoiseSchedule, num_steps: int) -> Tensor:
    """The timestep of every step, ``(num_steps,)``, decreasing."""
    training_steps = len(noise_schedule.alphas_cumprod)
    if noise_schedule.timestep_spacing == "trailing":
        spaced = np.round(np.arange(training_steps, 0, -training_steps / num_steps))[:num_steps] - 1
    elif noise_schedule.timestep_spacing == "linspace":
        spaced = np.linspace(0, training_steps - 1, num_steps).round()[::-1]
    else:
        spaced = np.arange(num_steps - 1, -1, -1) * (training_steps // num_steps) + noise_schedule.steps_offset
    return torch.from_numpy(spaced.astype(np.int64))


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
