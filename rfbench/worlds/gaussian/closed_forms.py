"""The analytic world in closed form: denoisers, chain, expected reward, KL and optimum. README.md derives them.

Everything here is a pure function of float64 tensors. KL and beta are in nats, summed over dimensions and steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rfbench.core.noising.diffusion import Diffusion
from rfbench.core.schedule import Schedule, per_row

Exact = Callable[[Tensor, Tensor, Tensor], Tensor]  # E[output | x_t] from x_t, the data's mean and timesteps (m,)


def posterior_noise(latents: Tensor, mean: Tensor, std: float, alpha_bar: Tensor) -> Tensor:
    """E[eps | x_t] for x_t = sqrt(ab) x_0 + sqrt(1 - ab) eps with x_0 ~ N(mean, std^2 I): the exact denoiser.

    ``latents`` and ``mean`` are ``(..., dimensions)``, ``alpha_bar`` broadcasts against them.
    """
    variance = alpha_bar * std**2 + 1 - alpha_bar
    return (1 - alpha_bar).sqrt() / variance * (latents - alpha_bar.sqrt() * mean)


def exact_noise(process: Diffusion, std: float) -> Exact:
    """The exact denoiser of a diffusion, for latents and means ``(m, dimensions)``."""

    def output(latents: Tensor, mean: Tensor, timesteps: Tensor) -> Tensor:
        alpha_bar = per_row(process.alphas_cumprod.to(latents.device), timesteps, latents)
        return posterior_noise(latents, mean, std, alpha_bar)

    return output


def posterior_velocity(latents: Tensor, mean: Tensor, std: float, share: Tensor) -> Tensor:
    """E[eps - x_0 | x_s] for x_s = (1 - s) x_0 + s eps with x_0 ~ N(mean, std^2 I), as ``posterior_noise``."""
    variance = ((1 - share) * std).square() + share.square()
    return (share - (1 - share) * std**2) / variance * (latents - (1 - share) * mean) - mean


def exact_velocity(std: float) -> Exact:
    """The exact denoiser of a flow, for latents and means ``(m, dimensions)``."""

    def output(latents: Tensor, mean: Tensor, timesteps: Tensor) -> Tensor:
        return posterior_velocity(latents, mean, std, timesteps.to(latents.dtype)[:, None])

    return output


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


def reference_chain(schedule: Schedule, exact: Exact) -> Chain:
    """The chain that ``schedule`` makes of the exact denoiser."""
    one, timesteps = torch.ones(schedule.num_steps, 1, dtype=torch.float64), schedule.timesteps.cpu()
    output_weight = schedule.output_weight.double().cpu()
    # the denoiser is linear in (x_t, m): its values at (1, 0) and (0, 1) are its coefficients
    latent_gain = schedule.latent_weight.double().cpu() + output_weight * exact(one, 0 * one, timesteps).flatten()
    mean_gain = output_weight * exact(0 * one, one, timesteps).flatten()
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

    A penalty on the network's output eps is a KL without its weight output_weight_k^2 / (2 sigma_k^2).
    """
    return (2 * penalty * (schedule.sigma / schedule.output_weight).square()).double().cpu()


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
