"""Every sampler against its official code, transcribed, and flows and diffusions against each other."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from rfbench.core.noising.diffusion import Diffusion
from rfbench.core.noising.flow import AsFlow, Flow, dynamic_shift
from rfbench.core.noising.levels import unit_share_norm
from rfbench.core.noising.process import Process
from rfbench.core.noising.samplers import SAMPLERS
from rfbench.core.schedule import Schedule
from rfbench.errors import InputError
from rfbench.suite.suite import Sampler

COSINE = Diffusion((torch.linspace(0.05, 0.95, 1000, dtype=torch.float64) * math.pi / 2).cos().square())
MeanAndStd = tuple[Tensor, Tensor]


def chain(process: Process, kind: str, num_steps: int = 10, **settings: Any) -> Schedule:
    return process.chain(Sampler(kind=kind, num_steps=num_steps, **settings))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flow_grpo_sde(x: Tensor, v: Tensor, sigmas: Tensor, i: int, noise_level: float) -> MeanAndStd:
    """flow_grpo's ``sde_step_with_logprob``, sde_type "sde"."""
    sigma, dt = sigmas[i], sigmas[i + 1] - sigmas[i]
    below_one = sigmas[1] if sigma == 1 else sigma
    std_dev_t = (sigma / (1 - below_one)).sqrt() * noise_level
    mean = x * (1 + std_dev_t**2 / (2 * sigma) * dt) + v * (1 + std_dev_t**2 * (1 - sigma) / (2 * sigma)) * dt
    return mean, std_dev_t * (-dt).sqrt()


def flow_grpo_cps(x: Tensor, v: Tensor, sigmas: Tensor, i: int, noise_level: float) -> MeanAndStd:
    """flow_grpo's ``sde_step_with_logprob``, sde_type "cps"."""
    sigma, sigma_prev = sigmas[i], sigmas[i + 1]
    std_dev_t = sigma_prev * math.sin(noise_level * math.pi / 2)
    pred_original_sample, noise_estimate = x - sigma * v, x + v * (1 - sigma)
    return pred_original_sample * (1 - sigma_prev) + noise_estimate * (sigma_prev**2 - std_dev_t**2).sqrt(), std_dev_t


def dance_flux_step(x: Tensor, v: Tensor, sigmas: Tensor, i: int, eta: float) -> MeanAndStd:
    """DanceGRPO's ``flux_step`` with sde_solver."""
    sigma, dsigma = sigmas[i], sigmas[i + 1] - sigmas[i]
    mean, pred_original_sample = x + dsigma * v, x - sigma * v
    score_estimate = -(x - pred_original_sample * (1 - sigma)) / sigma**2
    return mean + (-0.5 * eta**2 * score_estimate) * dsigma, eta * (-dsigma).sqrt()


def euler(x: Tensor, v: Tensor, sigmas: Tensor, i: int, _: float) -> MeanAndStd:
    return x + (sigmas[i + 1] - sigmas[i]) * v, torch.zeros((), dtype=torch.float64)


@pytest.mark.parametrize("shift", [1.0, 3.0, 1.15])
@pytest.mark.parametrize(
    ("kind", "official", "noise_level"),
    [
        ("flow-sde", flow_grpo_sde, 0.7),
        ("flow-sde", flow_grpo_sde, 1.2),
        ("cps", flow_grpo_cps, 0.8),
        ("dance-sde", dance_flux_step, 0.3),
        ("ode", euler, None),
    ],
)
def test_a_sampler_of_flows_is_its_official_code(kind: str, official: Any, noise_level: float, shift: float) -> None:
    defaults = (None, SAMPLERS[kind].scale) if kind != "flow-sde" else (None, 0.7)
    schedule = chain(Flow(shift), kind, noise_level=None if noise_level == defaults[1] else noise_level)
    sigmas = torch.cat([schedule.timesteps, torch.zeros(1)])
    x, v = normal(2, 10, 6)
    for step in range(10):
        mean, std = official(x[step], v[step], sigmas, step, noise_level)
        ours = schedule.mean(x[step : step + 1], v[step : step + 1], torch.tensor([step]))[0]
        torch.testing.assert_close(ours, mean, rtol=0, atol=1e-13)
        torch.testing.assert_close(schedule.sigma[step], std, rtol=0, atol=1e-14)


@pytest.mark.parametrize("steps", [4, 10, 28])
@pytest.mark.parametrize("tokens", [None, 1024])
def test_shifts_and_the_ode_are_diffusers(tokens: int | None, steps: int) -> None:
    """Stable Diffusion 3's constant, and FLUX's mu, as ``calculate_shift`` of its pipeline has it."""
    sigmas = np.linspace(1.0, 1 / steps, steps)
    if tokens is None:
        scheduler, process = FlowMatchEulerDiscreteScheduler(shift=3.0), Flow(3.0)
        scheduler.set_timesteps(sigmas=sigmas)
    else:
        slope = (1.15 - 0.5) / (4096 - 256)
        scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        scheduler.set_timesteps(sigmas=sigmas, mu=slope * tokens + 0.5 - slope * 256)
        process = Flow(dynamic_shift(tokens))
    schedule = chain(process, "ode", steps)
    torch.testing.assert_close(schedule.timesteps.float(), scheduler.timesteps / 1000, rtol=0, atol=1e-6)
    x = y = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    for step, timestep in enumerate(scheduler.timesteps):
        v = torch.randn(1, 16, generator=torch.Generator().manual_seed(step))
        x = scheduler.step(v, timestep, x).prev_sample
        y = schedule.mean(y, v, torch.tensor([step]))
    torch.testing.assert_close(y, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("process", [COSINE, AsFlow(COSINE), Flow()], ids=["diffusion", "converted", "flow"])
def test_conversions_lead_back(process: Process) -> None:
    clean, noise = normal(2, 5, 3, 4)
    timesteps = chain(process, "ode", 5).timesteps
    latents, output = process.add_noise(clean, noise, timesteps), process.target(clean, noise, timesteps)
    share = process.noise_share(timesteps)[:, None, None]
    exact = {"rtol": 0, "atol": 1e-11}
    torch.testing.assert_close(process.clean_from(output, latents, timesteps), clean, **exact)
    torch.testing.assert_close(process.noise_from(output, latents, timesteps), noise, **exact)
    torch.testing.assert_close(process.target_given(latents, clean, timesteps), output, **exact)
    shown = process.network_latents(latents, timesteps)
    torch.testing.assert_close(shown / shown.std(), ((1 - share) * clean + share * noise) * (
        1 if isinstance(process, Flow) else 1 / unit_share_norm(share)
    ) / shown.std(), **exact)  # fmt: skip


@pytest.mark.parametrize("kind", SAMPLERS)
def test_each_sampler_draws_the_same_on_a_diffusion_and_on_it_as_a_flow(kind: str) -> None:
    """With the same noise and a nonlinear network, and of the last latents in the diffusion's scale."""

    def sample(process: Process) -> Tensor:
        schedule, drawn = chain(process, kind, 20), normal(21, 64, 4)
        latents = schedule.initial_std * drawn[0]
        for step, timestep in enumerate(schedule.timesteps):
            at = timestep.expand(64)
            shown = process.network_latents(latents, at)
            output = process.output_of(torch.tanh(shown) * shown.flip(1).cos(), shown, at)
            latents = schedule.mean(latents, output, torch.full((64,), step)) + schedule.sigma[step] * drawn[step + 1]
        return latents

    torch.testing.assert_close(sample(AsFlow(COSINE)), sample(COSINE), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("noise_level", "eta"), [(math.sqrt(2), 1.0), (None, 0.7 / math.sqrt(2))])
def test_flow_sde_is_ddim_in_other_coordinates_as_steps_grow_fine(noise_level: float | None, eta: float) -> None:
    """sqrt 2 is ancestral sampling, the default of 0.7 DDIM with eta 0.495: the steps' sigma, and what of eps is kept.

    Relative differences of every step below s = 0.9 and before the last few, where steps are no longer short.
    """
    differences = []
    for num_steps in (50, 200, 800):
        ours = chain(Flow(), "flow-sde", num_steps, noise_level=noise_level)
        theirs = chain(Flow(), "ddim", num_steps, eta=eta)
        inside = (ours.timesteps < 0.9) & (ours.timesteps > 0.1)
        worst = [
            ((getattr(ours, name) / getattr(theirs, name))[inside] - 1).abs().max()
            for name in ("sigma", "latent_weight")
        ]
        differences.append(float(max(worst)))
    assert differences[0] < 0.3
    assert all(finer < coarse / 3.5 for coarse, finer in pairwise(differences))


def test_a_diffusion_of_pure_noise_cannot_start() -> None:
    alphas = torch.cat([COSINE.alphas_cumprod[:-1], torch.zeros(1, dtype=torch.float64)])
    zero = Diffusion(alphas, timestep_spacing="trailing")
    for process in (zero, AsFlow(zero)):
        with pytest.raises(
            InputError, match=r"timestep 999, where alpha_bar is 0 .*sigma, 1: .* timestep 998, sigma 0\.9"
        ):
            chain(process, "flow-sde")
    assert chain(AsFlow(Diffusion(alphas)), "flow-sde").num_steps == 10  # leading: from timestep 900
