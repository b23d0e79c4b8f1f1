"""The noise levels between which the steps of a chain lead, in the two measures of the field."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Levels:
    """Where each step starts and where it arrives, ``(steps,)`` float64 each but for the timesteps.

    A level is a mixture a x_0 + b eps up to its scale, so one number tells it: alpha_bar = a^2 where a^2 + b^2 = 1
    (diffusion), the noise's share s = b where a + b = 1 (rectified flow). s = sqrt(1 - ab) / (sqrt(ab) + sqrt(1 - ab)).

    Attributes:
        timesteps: what the network is told at each step's start, ``(steps,)``, decreasing.
        alpha_bar, alpha_bar_next: a^2 before and after the step, at a^2 + b^2 = 1.
        share, share_next: b before and after the step, at a + b = 1.
    """

    timesteps: Tensor
    alpha_bar: Tensor
    alpha_bar_next: Tensor
    share: Tensor
    share_next: Tensor

    @classmethod
    def of_alpha_bar(cls, timesteps: Tensor, before: Tensor, after: Tensor) -> Levels:
        return cls(timesteps, before, after, share_of(before), share_of(after))

    @classmethod
    def of_share(cls, timesteps: Tensor, before: Tensor, after: Tensor) -> Levels:
        return cls(timesteps, alpha_bar_of(before), alpha_bar_of(after), before, after)


def share_of(alpha_bar: Tensor) -> Tensor:
    """The noise's share s of a mixture with this alpha_bar."""
    return (1 - alpha_bar).sqrt() / (alpha_bar.sqrt() + (1 - alpha_bar).sqrt())


def alpha_bar_of(share: Tensor) -> Tensor:
    """The alpha_bar of a mixture with this share of noise."""
    return (1 - share).square() / unit_share_norm(share).square()


def unit_share_norm(share: Tensor) -> Tensor:
    """sqrt((1 - s)^2 + s^2): what a latent of unit variance is multiplied by to have weights that add up to 1."""
    return ((1 - share).square() + share.square()).sqrt()
