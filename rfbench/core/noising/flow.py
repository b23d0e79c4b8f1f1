"""Rectified flow over continuous time, and a diffusion's network seen as one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rfbench.core.noising.diffusion import Diffusion
from rfbench.core.noising.levels import Levels, unit_share_norm
from rfbench.core.noising.process import Process
from rfbench.suite.suite import Sampler

FEWEST_TOKENS, LOWEST_MU = 256, 0.5  # of FLUX's images of 256 x 256 pixels
MOST_TOKENS, HIGHEST_MU = 4096, 1.15  # and of 1024 x 1024


class Rectified(Process):
    """x_s = (1 - s) x_0 + s eps with the noise's share s. The output is the velocity v = eps - x_0."""

    def weights(self, levels: Levels, kept: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # (1 - s') x_0 + kept eps with x_0 = x_s - s v and eps = x_s + (1 - s) v
        scale, clean = unit_share_norm(levels.share_next), 1 - levels.share_next
        output_weight = (1 - levels.share) * scale * kept - levels.share * clean
        return clean + scale * kept, output_weight, scale * sigma

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        share = self._share(timesteps, clean)
        return (1 - share) * clean + share * noise

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise - clean

    def target_given(self, latents: Tensor, clean: Tensor, timesteps: Tensor) -> Tensor:
        return (latents - clean) / self._share(timesteps, latents)

    def clean_from(self, output: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        return latents - self._share(timesteps, latents) * output

    def noise_from(self, output: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        return latents + (1 - self._share(timesteps, latents)) * output

    def _share(self, timesteps: Tensor, like: Tensor) -> Tensor:
        return self.noise_share(timesteps).to(like.dtype).view(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True)
class Flow(Rectified):
    """A network that was trained on velocities; a timestep is the noise's share s itself, in [0, 1].

    Attributes:
        shift: s of equal steps from 1 to 0 becomes shift s / (1 + (shift - 1) s): more steps at high noise. A constant
            for Stable Diffusion 3, ``dynamic_shift`` of the image's size for FLUX.
        last_start: s, before its shift, at which the last step starts, whatever the number of steps; those before it
            are equally long. None: all are.
    """

    shift: float = 1.0
    last_start: float | None = None

    def levels(self, sampler: Sampler) -> Levels:
        shares = torch.linspace(1, 0, sampler.num_steps + 1, dtype=torch.float64)
        if self.last_start is not None:
            shares[:-1] = torch.linspace(1, self.last_start, sampler.num_steps, dtype=torch.float64)
        shares = self.shift * shares / (1 + (self.shift - 1) * shares)
        shares[0] = 1.0  # not rounded to more
        return Levels.of_share(shares[:-1], shares[:-1], shares[1:])

    def random_timestep(self, generator: torch.Generator) -> Tensor:
        return torch.rand((), generator=generator)

    def noise_share(self, timesteps: Tensor) -> Tensor:
        return timesteps


def dynamic_shift(
    num_tokens: int,
    fewest: int = FEWEST_TOKENS,
    lowest: float = LOWEST_MU,
    most: int = MOST_TOKENS,
    highest: float = HIGHEST_MU,
) -> float:
    """The shift e^mu for images of so many tokens, mu linear in their number (Black Forest Labs; diffusers).

    mu is ``lowest`` at the ``fewest`` tokens and ``highest`` at the ``most``; FLUX's by default.
    """
    slope = (highest - lowest) / (most - fewest)
    return math.exp(lowest + slope * (num_tokens - fewest))


@dataclass(frozen=True)
class AsFlow(Rectified):
    """A diffusion's network as a flow, without training: its latents scaled to weights that add up to 1.

    Timesteps are the diffusion's, and so are the noise levels of a chain: it starts below s = 1. Its result is in the
    diffusion's scale, so that images are those of the diffusion.
    """

    diffusion: Diffusion

    def levels(self, sampler: Sampler) -> Levels:
        return self.diffusion.levels(sampler)

    def weights(self, levels: Levels, kept: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        back = torch.ones_like(sigma)
        back[-1] = 1 / unit_share_norm(levels.share_next[-1])
        latent_weight, output_weight, sigma = super().weights(levels, kept, sigma)
        return back * latent_weight, back * output_weight, back * sigma

    def initial_std(self, levels: Levels) -> Tensor:
        return unit_share_norm(levels.share[0])

    def random_timestep(self, generator: torch.Generator) -> Tensor:
        return self.diffusion.random_timestep(generator)

    def noise_share(self, timesteps: Tensor) -> Tensor:
        return self.diffusion.noise_share(timesteps)

    def network_latents(self, latents: Tensor, timesteps: Tensor) -> Tensor:
        return latents / unit_share_norm(self._share(timesteps, latents))

    def output_of(self, raw: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        noise = self.diffusion.output_of(raw, latents, timesteps)
        return noise - self.diffusion.clean_from(noise, latents, timesteps)
