"""The analytic world in closed form: denoiser, chain, expected reward, KL and optimum. README.md derives them.

Everything here is a pure function of float64 tensors. KL and beta are in nats, summed over dimensions and steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rfbench.core.schedule import Schedule


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


def step_kl(chain: Chain, shifts: Tensor) -> Tensor:
    """Each step's KL from the reference in nats, ``(prompts, steps)``: |shift|^2 / (2 sigma^2); they add up."""
    return (shifts / chain.sigma[:, None]).square().sum(2) / 2


def optimal_shifts(chain: Chain, directions: Tensor, beta: float | Tensor) -> Tensor:
    """The shifts ``(prompts, steps, dimensions)`` of highest E[w . x_0] - sum_k beta_k KL_k: sigma_k^2 G_k w / beta_k.

    ``beta`` is in reward units per nat: one for all steps (the KL-regularised optimum), or one per step, ``(steps,)``.
    """
    return (chain.sigma.square() * chain.reach / beta)[:, None] * directions[:, None, :]


def noise_penalty_beta(schedule: Schedule, penalty: float) -> Tensor:
    """The beta of each step, ``(steps,)``, that makes beta_k KL_k = ``penalty`` |eps_theta - eps_ref|^2.

    A penalty on the predicted noise is a KL without its weight noise_weight_k^2 / (2 sigma_k^2).
    """
    return (2 * penalty * (schedule.sigma / schedule.noise_weight).square()).double().cpu()


def measures(
    chain: Chain, means: Tensor, directions: Tensor, shifts: Tensor, beta: float | Tensor
) -> dict[str, Tensor]:
    """What a policy with ``shifts`` is worth under the reward w . x_0, ``(prompts,)`` each.

    ``J`` is E[r] - beta KL with beta in reward units per nat, or E[r] - sum_k beta_k KL_k; ``regret`` is the highest J
    of all shifts less it.
    """

    def worth(of: Tensor) -> tuple[Tensor, Tensor]:
        reward = (directions * expected_clean(chain, means, of)).sum(1)
        return reward, reward - (beta * step_kl(chain, of)).sum(1)

    reward, objective = worth(shifts)
    _, optimum = worth(optimal_shifts(chain, directions, beta))
    kl = step_kl(chain, shifts).sum(1)
    return {"expected_reward": reward, "expected_kl": kl, "J": objective, "regret": optimum - objective}
