"""Variance-preserving diffusion over discrete timesteps: Stable Diffusion's process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rfbench.core.noising.levels import Levels, share_of
from rfbench.core.noising.process import Process
from rfbench.core.schedule import per_row
from rfbench.errors import InputError
from rfbench.suite.suite import Sampler

SPACINGS = ("leading", "trailing", "linspace")


@dataclass(frozen=True)
class Diffusion(Process):
    """x_t = sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps. The output is the noise, to which a v prediction is converted.

    Attributes:
        alphas_cumprod: alpha_bar of every training timestep, ``(training steps,)``, decreasing.
        prediction_type: what the network says, ``"epsilon"`` or ``"v_prediction"``: sqrt(ab) eps - sqrt(1 - ab) x_0.
        steps_offset: the timestep of the last denoising step under "leading" spacing (Stable Diffusion: 1).
        final_alpha_cumprod: alpha_bar that the last step arrives at, but for ddpm's (1 where ``set_alpha_to_one``).
        timestep_spacing: which timesteps a chain of few steps visits, one of ``SPACINGS`` (Lin et al. 2024, table 2).
    """

    alphas_cumprod: Tensor
    prediction_type: str = "epsilon"
    steps_offset: int = 0
    final_alpha_cumprod: float = 1.0
    timestep_spacing: str = "leading"

    def levels(self, sampler: Sampler) -> Levels:
        """Spaced as diffusers' DDPM and DDIM schedulers space them.

        Each step arrives where the next begins, and the last at the model's ``final_alpha_cumprod``; but ddpm's last
        arrives at a clean image, and all of ddim's go on by an equal number of timesteps, as in diffusers.
        """
        num_steps, training_steps = sampler.num_steps, len(self.alphas_cumprod)
        if not 1 <= num_steps <= training_steps:
            raise InputError(f"sampler.num_steps is {num_steps}, but the model has {training_steps} training timesteps")
        timesteps = self._timesteps(num_steps)
        if int(timesteps[0]) >= training_steps:
            raise InputError(
                f"sampler.num_steps is {num_steps}, but with steps_offset {self.steps_offset} its first step is "
                f"timestep {int(timesteps[0])}, and the model's last is {training_steps - 1}; use "
                f"{training_steps - self.steps_offset} or fewer"
            )
        if sampler.kind == "ddim":
            previous = timesteps - training_steps // num_steps
        else:
            previous = torch.cat([timesteps[1:], torch.tensor([-1])])
        alphas_cumprod = self.alphas_cumprod.double()
        final = 1.0 if sampler.kind == "ddpm" else self.final_alpha_cumprod
        alpha_bar = alphas_cumprod[timesteps]
        if alpha_bar[0] == 0:
            raise InputError(self._starts_in_noise(timesteps[0]))
        alpha_bar_next = torch.where(
            previous >= 0, alphas_cumprod[previous.clamp(min=0)], torch.tensor(final, dtype=torch.float64)
        )
        return Levels.of_alpha_bar(timesteps, alpha_bar, alpha_bar_next)

    def weights(self, levels: Levels, kept: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # sqrt(ab') x_0 + kept eps with x_0 = (x_t - sqrt(1 - ab) eps) / sqrt(ab)
        latent_weight = (levels.alpha_bar_next / levels.alpha_bar).sqrt()
        return latent_weight, kept - latent_weight * (1 - levels.alpha_bar).sqrt(), sigma

    def ode_kept(self, levels: Levels) -> Tensor:
        """By the rounded alpha_bar that a step's latent weight leads to, so that earlier runs resume to the bit."""
        latent_weight = (levels.alpha_bar_next / levels.alpha_bar).sqrt()
        return (1 - latent_weight.square() * levels.alpha_bar).clamp(min=0).sqrt()

    def random_timestep(self, generator: torch.Generator) -> Tensor:
        return torch.randint(len(self.alphas_cumprod), (), generator=generator)

    def noise_share(self, timesteps: Tensor) -> Tensor:
        return share_of(self.alphas_cumprod.to(timesteps.device)[timesteps])

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        alpha_bar = self._alpha_bar(timesteps, clean)
        return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise

    def target_given(self, latents: Tensor, clean: Tensor, timesteps: Tensor) -> Tensor:
        alpha_bar = self._alpha_bar(timesteps, latents)
        return (latents - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()

    def clean_from(self, output: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        alpha_bar = self._alpha_bar(timesteps, latents)
        return (latents - (1 - alpha_bar).sqrt() * output) / alpha_bar.sqrt()

    def noise_from(self, output: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        return output

    def output_of(self, raw: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        if self.prediction_type == "epsilon":
            return raw
        alpha_bar = self._alpha_bar(timesteps, latents)
        return alpha_bar.sqrt() * raw + (1 - alpha_bar).sqrt() * latents

    def _starts_in_noise(self, timestep: Tensor) -> str:
        last = int(torch.nonzero(self.alphas_cumprod > 0).max())
        return (
            f"the chain would start at timestep {int(timestep)}, where alpha_bar is 0 and the noise's share, sigma, 1: "
            "from noise alone, of which predicted noise tells no image. The noisiest start that this model has is "
            f"timestep {last}, sigma {float(self.noise_share(torch.tensor(last))):.4f}; a scheduler's file with "
            'timestep_spacing "leading" starts below its last timestep'
        )

    def _alpha_bar(self, timesteps: Tensor, like: Tensor) -> Tensor:
        return per_row(self.alphas_cumprod.to(like.device), timesteps, like)

    def _timesteps(self, num_steps: int) -> Tensor:
        """The timestep of every step, ``(num_steps,)``, decreasing."""
        training_steps = len(self.alphas_cumprod)
        if self.timestep_spacing == "trailing":
            spaced = np.round(np.arange(training_steps, 0, -training_steps / num_steps))[:num_steps] - 1
        elif self.timestep_spacing == "linspace":
            spaced = np.linspace(0, training_steps - 1, num_steps).round()[::-1]
        else:
            spaced = np.arange(num_steps - 1, -1, -1) * (training_steps // num_steps) + self.steps_offset
        return torch.from_numpy(spaced.astype(np.int64))
