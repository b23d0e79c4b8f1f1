"""What rfbench asks of a reward, and the one place where rewards are called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from rfbench.errors import NonFiniteError, RfbenchError
from rfbench.sources import Sourced
from rfbench.suite import Settings


class Reward(Sourced, ABC):
    """Scores images against their prompts; higher is better.

    A reward is made from its ``Config`` and a device. Scores of one image must not depend on the others in the batch.

    Attributes:
        unit: what one unit of the score is, for tables and for beta.
        version: version of the checkpoint or rule that scores.
    """

    Config: ClassVar[type[Settings]] = Settings
    unit: str
    version: str

    @abstractmethod
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores ``(n,)`` of images as the model decodes them: 8-bit RGB ``(n, 3, H, W)``."""


@torch.no_grad()
def score(reward: Reward, name: str, images: Tensor, prompts: Sequence[str], where: str, first: int) -> Tensor:
    """The reward's scores ``(n,)``, fp32 on the CPU, checked.

    ``where`` (such as "epoch 3") and ``first``, the first image's number there, go into errors.
    """
    scores = reward(images, prompts)
    if tuple(scores.shape) != (len(images),):
        raise RfbenchError(
            f"the reward {name!r} returned shape {tuple(scores.shape)} for {len(images)} images at {where}; "
            f"it must return one score per image, ({len(images)},)"
        )
    scores = scores.float().cpu()
    broken = torch.nonzero(~scores.isfinite()).flatten().tolist()
    if broken:
        worst = broken[0]
        raise NonFiniteError(
            f"the reward {name!r} gave {scores[worst].item()} at {where} for image {first + worst}, prompt "
            f"{prompts[worst]!r} ({len(broken)} of {len(scores)} scores of its batch are not finite)"
        )
    return scores
