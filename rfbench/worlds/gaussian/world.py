"""What the analytic world consists of: its prompts, their data and rewards, and the noise levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rfbench.core.noising.diffusion import Diffusion
from rfbench.core.noising.flow import Flow
from rfbench.errors import InputError, did_you_mean

DIMENSIONS = 2
DATA_STD = 0.5  # s: the data of prompt c are N(m_c, s^2 I)
NUM_TIMESTEPS = 10
ANGLES = tuple(range(0, 360, 45))
PROMPTS = tuple(f"a point at {angle} degrees" for angle in ANGLES)


def index(prompt: str) -> int:
    """The prompt's row in ``directions()``."""
    if prompt not in PROMPTS:
        raise InputError(
            f"the gaussian world has no prompt {prompt!r}{did_you_mean(prompt, PROMPTS)}; it has the {len(PROMPTS)} "
            f"prompts from {PROMPTS[0]!r} to {PROMPTS[-1]!r}"
        )
    return PROMPTS.index(prompt)


def directions() -> Tensor:
    """Unit vectors ``(prompts, 2)``, float64: the mean m_c of each prompt's data, and the slope w_c of its reward."""
    radians = torch.tensor(ANGLES, dtype=torch.float64) * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def diffusion() -> Diffusion:
    """A cosine schedule; the last denoising step arrives at alpha_bar_0 < 1, so that it too has a density.

    alpha_bar_t = cos^2(pi/2 (t + 1/2) / (T + 1)), t = 0 ... T, from 0.995 down to 0.005 as in Stable Diffusion.
    """
    levels = torch.arange(NUM_TIMESTEPS + 1, dtype=torch.float64) + 0.5
    alphas_cumprod = (levels * math.pi / 2 / (NUM_TIMESTEPS + 1)).cos().square()
    return Diffusion(alphas_cumprod[1:], final_alpha_cumprod=float(alphas_cumprod[0]))


def flow() -> Flow:
    """The same data as a rectified flow, from noise alone to the data themselves."""
    return Flow()
