"""The samplers: how much of the predicted noise a step keeps, and how much it draws afresh.

Each step from a x_0 + b eps to a' x_0 + b' eps is

    x' = a' x_0_hat + kept eps_hat + sigma z,     z ~ N(0, I),

with x_0 and eps as the network tells them, so a sampler is a function of the noise levels that gives ``kept`` and
``sigma``, at unit variance (a'^2 + b'^2 = 1). None asks what the network predicts or in what scale latents are: a
`Process` turns the two into the weights of its own latents and outputs. So each sampler is there for every process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rfbench.core.noising.levels import Levels, unit_share_norm
from rfbench.errors import InputError, did_you_mean
from rfbench.suite.suite import Sampler

KeptAndSigma = tuple[Tensor, Tensor]
# Published: up to 1.5. Far beyond it, an Euler step of usual length subtracts more noise than there is.
LARGEST_NOISE_LEVEL = 2.0
SAME_AS_ONE = 1e-6  # shares of noise this near to 1 are pure noise


def ddim(levels: Levels, eta: float) -> KeptAndSigma:
    """DDIM (Song et al. 2021, eq. 12 and 16): sigma is ``eta`` times the posterior's of DDPM (Ho et al. 2020, eq. 7).

    What is kept leaves the step's result at the noise level that it arrives at.
    """
    before, after = levels.alpha_bar, levels.alpha_bar_next
    variance = eta**2 * (1 - after) / (1 - before) * (1 - before / after)
    return (1 - after - variance).clamp(min=0).sqrt(), variance.sqrt()


def cps(levels: Levels, noise_level: float) -> KeptAndSigma:
    """Coefficients-preserving sampling (arXiv 2509.05952): DDIM whose sigma is b' sin(a pi / 2), whatever the step."""
    noise, angle = (1 - levels.alpha_bar_next).sqrt(), noise_level * math.pi / 2
    return noise * math.cos(angle), noise * math.sin(angle)


def flow_sde(levels: Levels, noise_level: float) -> KeptAndSigma:
    """Flow-GRPO's SDE (arXiv 2505.05470, eq. 9), g^2 = a^2 s / (1 - s).

    Where s is 1, which would make g infinite, its denominator takes the next level's s, as the official code does.
    """
    share = levels.share
    below_one = share.where(1 - share > SAME_AS_ONE, levels.share_next)
    return _euler(levels, noise_level**2 * share / (1 - below_one))


def dance_sde(levels: Levels, noise_level: float) -> KeptAndSigma:
    """DanceGRPO's SDE (arXiv 2505.07818): g is ``noise_level`` at every noise level."""
    return _euler(levels, noise_level**2 * torch.ones_like(levels.share))


def _euler(levels: Levels, squared_diffusion: Tensor) -> KeptAndSigma:
    """An Euler step of dx = (v + g^2 / (2 s) eps) ds + g dw in the scale of a flow, brought to unit variance."""
    length = levels.share - levels.share_next
    kept = levels.share_next - squared_diffusion * length / (2 * levels.share)
    sigma = (squared_diffusion * length).sqrt()
    scale = unit_share_norm(levels.share_next)
    return kept / scale, sigma / scale


@dataclass(frozen=True)
class Rule:
    """A sampler by name.

    Attributes:
        step: its function of the levels and of the scale of its noise.
        scaled_by: the field of the suite's sampler that is this scale; None where it is fixed.
        scale: the scale where the field says nothing.
        largest_scale: None where there is none.
    """

    step: Callable[[Levels, float], KeptAndSigma]
    scaled_by: Literal["eta", "noise_level"] | None
    scale: float
    largest_scale: float | None = None

    def scale_of(self, sampler: Sampler) -> float:
        given = getattr(sampler, self.scaled_by) if self.scaled_by else None
        return self.scale if given is None else given


SAMPLERS = {
    "ddpm": Rule(ddim, None, 1.0),
    "ddim": Rule(ddim, "eta", 1.0),
    "ode": Rule(ddim, None, 0.0),
    "flow-sde": Rule(flow_sde, "noise_level", 0.7, largest_scale=LARGEST_NOISE_LEVEL),
    "dance-sde": Rule(dance_sde, "noise_level", 0.3, largest_scale=LARGEST_NOISE_LEVEL),
    "cps": Rule(cps, "noise_level", 0.8, largest_scale=1.0),
}


def find(sampler: Sampler) -> Rule:
    """The rule of a suite's sampler; an ``InputError`` where there is none, or a scale is set that it does not have."""
    kind = sampler.kind
    if kind not in SAMPLERS:
        raise InputError(
            f"sampler.kind is {kind!r}{did_you_mean(kind, SAMPLERS)}; the samplers are {', '.join(SAMPLERS)}"
        )
    rule = SAMPLERS[kind]
    for field, unset in (("eta", 1.0), ("noise_level", None)):
        value = getattr(sampler, field)
        if value != unset and rule.scaled_by != field:
            others = [name for name, other in SAMPLERS.items() if other.scaled_by == field]
            own = f"the noise of {kind} is set by {rule.scaled_by}" if rule.scaled_by else f"{kind} has no such number"
            raise InputError(
                f"sampler.{field} is {value:g}, but {own}; leave it out, or use kind = {' or '.join(map(repr, others))}"
            )
    if rule.largest_scale is not None and rule.scale_of(sampler) > rule.largest_scale:
        raise InputError(
            f"sampler.{rule.scaled_by} is {rule.scale_of(sampler):g}, but that of {kind} is at most "
            f"{rule.largest_scale:g}"
        )
    return rule


def is_deterministic(sampler: Sampler) -> bool:
    """Whether no step of the sampler's chain draws noise."""
    return find(sampler).scale_of(sampler) == 0
