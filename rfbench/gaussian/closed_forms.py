"""The analytic world in closed form: denoiser, chain, expected reward, KL and optimum. README.md derives them.

Everything here is a pure function of float64 tensors. KL and beta are in nats, summed over dimensions and steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rfbench.schedule import Schedule


def posterior_noise(latents: Tensor, mean: Tensor, std: float, alpha_bar: Tensor) -> Tensor:
    """E[eps | x_t] for x_t = sqrt(ab) x_0 + sqrt(1 - ab) eps with x_0 ~ N(mean, std^2 I): the exact denoiser.

    ``latents`` and ``mean`` are ``(..., dimensions)``, ``alpha_bar`` broadcasts against them.
    """
    variance = alpha_bar * std**2 + 1 - alpha_bar
    return (1 - alpha_bar).sqrt() / variance * (latents - alpha_bar.sqrt() * mean)


@dataclass(frozen=True)
class Chain:
    """The reference's chain for data of mean m: step k draws ``N(latent_gain[k] x + mean_gain[k] m, sigma[k]^2 I)``.

    Each is ``(steps,)``, in sampling order.
    """

    latent_gain: Tensor
    mean_gain: Tensor
    sigma: Tensor

    @property
    def reach(self) -> Tensor:
        """G_k = d x_0 / d (result of step k), ``(steps,)``: the product of the later steps' gains."""
        later = torch.cat([self.latent_gain[1:], self.latent_gain.new_ones(1)])
        return later.flip(0).cumprod(0).flip(0)

    @property
    def initial_reach(self) -> Tensor:
        """d x_0 / d x_T, a scalar."""
        return self.latent_gain.prod()


def reference_chain(schedule: Schedule, std: float) -> Chain:
    """The chain that ``schedule`` makes of the exact denoiser."""
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    alpha_bar, noise_weight = schedule.alpha_bar.double().cpu(), schedule.noise_weight.double().cpu()
    # the denoiser is linear in (x_t, m): its values at (1, 0) and (0, 1) are its coefficients
    latent_gain = schedule.latent_weight.double().cpu() + noise_weight * posterior_noise(one, zero, std, alpha_bar)
    mean_gain = noise_weight * posterior_noise(zero, one, std, alpha_bar)
    return Chain(latent_gain, mean_gain, schedule.sigma.double().cpu())


def expected_clean(chain: Chain, means: Tensor, shifts: Tensor) -> Tensor:
    """E[x_0] ``(prompts, dimensions)`` of the policy whose step means are the reference's plus ``shifts``.

    Args:
        means: m_c, ``(prompts, dimensions)``.
        shifts: ``(prompts, steps, dimensions)``.
    """
    drift = chain.mean_gain[:, None] * means[:, None, :] + shifts
    return (chain.reach[:, None] * drift).sum(1)


def trajectory_kl(chain: Chain, shifts: Tensor) -> Tensor:
    """KL(pi_theta(x_0:T) || pi_ref(x_0:T)) in nats, ``(prompts,)``: sum over steps of |shift|^2 / (2 sigma^2)."""
    return (shifts / chain.sigma[:, None]).square().sum((1, 2)) / 2


def optimal_shifts(chain: Chain, directions: Tensor, beta: float) -> Tensor:
    """The shifts ``(prompts, steps, dimensions)`` that maximise E[w . x_0] - beta KL: sigma_k^2 G_k w / beta."""
    return (chain.sigma.square() * chain.reach)[:, None] * directions[:, None, :] / beta


def measures(chain: Chain, means: Tensor, directions: Tensor, shifts: Tensor, beta: float) -> dict[str, Tensor]:
    """What a policy with ``shifts`` is worth under the reward w . x_0, ``(prompts,)`` each.

    ``J`` is E[r] - beta KL with beta in reward units per nat; ``regret`` is the optimum's J minus it.
    """

    def expected_reward(of: Tensor) -> Tensor:
        return (directions * expected_clean(chain, means, of)).sum(1)

    best = optimal_shifts(chain, directions, beta)
    optimum = expected_reward(best) - beta * trajectory_kl(chain, best)
    reward, kl = expected_reward(shifts), trajectory_kl(chain, shifts)
    objective = reward - beta * kl
    return {"expected_reward": reward, "expected_kl": kl, "J": objective, "regret": optimum - objective}
