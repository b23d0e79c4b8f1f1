"""What rfbench asks of a noising process: its mixture, its network's output, and the chain of a sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from rfbench.core.noising import samplers
from rfbench.core.noising.levels import Levels
from rfbench.core.schedule import Schedule
from rfbench.errors import InputError
from rfbench.suite.suite import Sampler


class Process(ABC):
    """How noise and data mix, x_t = a_t x_0 + b_t eps, and what the network is trained to say of the mixture.

    The *output* is that: the noise of a diffusion, the velocity of a flow. Step means are linear in it, and guidance
    mixes it. Latents, x_0, eps and outputs are ``(m, ...)``, timesteps ``(m,)``.
    """

    @abstractmethod
    def levels(self, sampler: Sampler) -> Levels:
        """The noise levels of the sampler's steps; an ``InputError`` where the process has no such chain."""

    @abstractmethod
    def weights(self, levels: Levels, kept: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A step's weight of the latent, weight of the output, and sigma, from a sampler's at unit variance."""

    @abstractmethod
    def random_timestep(self, generator: torch.Generator) -> Tensor:
        """A timestep, without shape, drawn as in pretraining."""

    @abstractmethod
    def noise_share(self, timesteps: Tensor) -> Tensor:
        """``(m,)`` the noise's share b / (a + b) of x_t, in [0, 1]: the time of a rectified flow that is as noisy."""

    @abstractmethod
    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t from x_0 and standard normal noise."""

    @abstractmethod
    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The output that the network is trained to give for ``add_noise`` of the same."""

    @abstractmethod
    def target_given(self, latents: Tensor, clean: Tensor, timesteps: Tensor) -> Tensor:
        """The output that tells x_0 of x_t: the inverse of ``clean_from``."""

    @abstractmethod
    def clean_from(self, output: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        """x_0 as the output tells it of x_t."""

    @abstractmethod
    def noise_from(self, output: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        """eps as the output tells it of x_t."""

    def network_latents(self, latents: Tensor, timesteps: Tensor) -> Tensor:
        """What the network is shown of x_t, in the scale that it was trained on."""
        return latents

    def output_of(self, raw: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        """The output, where the network was trained to say something else: ``raw``, of ``network_latents``."""
        return raw

    def initial_std(self, levels: Levels) -> Tensor:
        """Standard deviation of the chain's first latent, a scalar."""
        return torch.ones((), dtype=torch.float64)

    def ode_kept(self, levels: Levels) -> Tensor:
        """How much of the noise a step keeps that draws none, ``(steps,)`` at unit variance."""
        kept, _ = samplers.ddim(levels, eta=0.0)
        return kept

    def chain(self, sampler: Sampler) -> Schedule:
        """The chain that a suite's sampler makes of the process; an ``InputError`` where it cannot."""
        rule = samplers.find(sampler)
        levels = self.levels(sampler)
        latent_weight, output_weight, sigma = self.weights(levels, *rule.step(levels, rule.scale_of(sampler)))
        ode_latent_weight, ode_output_weight, _ = self.weights(levels, self.ode_kept(levels), torch.zeros_like(sigma))
        step = torch.arange(sampler.num_steps)
        counts = (sigma > 0) | (rule.scale_of(sampler) == 0)
        objective_steps = step[counts & (step < sampler.num_steps - sampler.skip_last_steps)]
        if len(objective_steps) == 0:
            raise InputError(
                f"no denoising step is left for the objective: {sampler.num_steps} steps, skip_last_steps "
                f"{sampler.skip_last_steps}, and {int((sigma == 0).sum())} steps without noise; lower "
                "sampler.skip_last_steps or raise sampler.num_steps"
            )
        return Schedule(
            timesteps=levels.timesteps,
            latent_weight=latent_weight,
            output_weight=output_weight,
            sigma=sigma,
            ode_latent_weight=ode_latent_weight,
            ode_output_weight=ode_output_weight,
            initial_std=self.initial_std(levels),
            objective_steps=objective_steps,
        )
