"""The linear reward of the analytic world."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rfbench.core.reward import Reward
from rfbench.errors import InputError
from rfbench.suite.settings import Settings
from rfbench.worlds.gaussian import world


class GaussianLinear(Reward):
    """How far a point lies along its prompt's direction, w_c . x_0; its standard deviation is about 0.4."""

    unit = "reward"
    version = "1"
    image_kind = "points"

    def __init__(self, config: Settings, device: torch.device) -> None:
        """Scores on the CPU."""

    @classmethod
    def check_prompts(cls, config: Settings, prompts: Iterable[str]) -> None:
        for prompt in prompts:
            world.index(prompt)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        if images.shape[1:] != (world.DIMENSIONS,):
            raise InputError(
                f"gaussian-linear scores points (m, {world.DIMENSIONS}), but the model's images are "
                f"{tuple(images.shape)}; it goes with the model 'gaussian' alone"
            )
        directions = world.directions()[[world.index(prompt) for prompt in prompts]]
        return (images.cpu().double() * directions).sum(1)
