"""A diffusion as a process: the formulas that rfbench had before it knew others, to the bit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from rfbench.core.noising.diffusion import SPACINGS, Diffusion
from rfbench.core.schedule import log_density
from rfbench.suite.suite import Sampler

ALPHAS = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod  # fp32
STABLE = Diffusion(ALPHAS, steps_offset=1, final_alpha_cumprod=float(ALPHAS[0]))
TIMESTEPS = torch.tensor([0, 1, 20, 451, 999])


def old_timesteps(process: Diffusion, num_steps: int) -> Tensor:
    training_steps = len(process.alphas_cumprod)
    if process.timestep_spacing == "trailing":
        spaced = np.round(np.arange(training_steps, 0, -training_steps / num_steps))[:num_steps] - 1
    elif process.timestep_spacing == "linspace":
        spaced = np.linspace(0, training_steps - 1, num_steps).round()[::-1]
    else:
        spaced = np.arange(num_steps - 1, -1, -1) * (training_steps // num_steps) + process.steps_offset
    return torch.from_numpy(spaced.astype(np.int64))


def old_schedule(process: Diffusion, num_steps: int, kind: str, eta: float) -> dict[str, Tensor]:
    """The chain in noise predictions, as ``make_schedule`` computed it."""
    timesteps = old_timesteps(process, num_steps)
    if kind == "ddpm":
        previous = torch.cat([timesteps[1:], torch.tensor([-1])])
    else:
        previous = timesteps - len(process.alphas_cumprod) // num_steps
    alphas_cumprod = process.alphas_cumprod.double()
    final = 1.0 if kind == "ddpm" else process.final_alpha_cumprod
    alpha_bar = alphas_cumprod[timesteps]
    alpha_bar_previous = torch.where(
        previous >= 0, alphas_cumprod[previous.clamp(min=0)], torch.tensor(final, dtype=torch.float64)
    )
    variance = eta**2 * (1 - alpha_bar_previous) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_previous)
    latent_weight = (alpha_bar_previous / alpha_bar).sqrt()
    direction = (1 - alpha_bar_previous - variance).clamp(min=0).sqrt()
    noise_weight = direction - latent_weight * (1 - alpha_bar).sqrt()
    # as ``Schedule.windowed`` made steps deterministic
    alpha_bar_next = latent_weight.square() * alpha_bar
    direct = (1 - alpha_bar_next).clamp(min=0).sqrt() - latent_weight * (1 - alpha_bar).sqrt()
    step = torch.arange(num_steps)
    return {
        "timesteps": timesteps,
        "latent_weight": latent_weight,
        "output_weight": noise_weight,
        "sigma": variance.sqrt(),
        "ode_latent_weight": latent_weight,
        "ode_output_weight": direct,
        "initial_std": torch.ones((), dtype=torch.float64),
        "objective_steps": step[((variance.sqrt() > 0) | (eta == 0)) & (step < num_steps - 1)],
    }


@pytest.mark.parametrize("final", [float(ALPHAS[0]), 1.0])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("kind", "eta"), [("ddpm", 1.0), ("ddim", 1.0), ("ddim", 0.5), ("ddim", 0.0)])
def test_the_chain_of_a_diffusion_is_the_old_one_to_the_bit(kind: str, eta: float, spacing: str, final: float) -> None:
    process = replace(STABLE, timestep_spacing=spacing, final_alpha_cumprod=final)
    for num_steps in (3, 7, 10, 20, 50, 333, 999):
        expected = old_schedule(process, num_steps, kind, eta)
        chain = process.chain(Sampler(kind=kind, eta=eta, num_steps=num_steps, skip_last_steps=1))
        assert vars(chain).keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(getattr(chain, name), value), (name, num_steps)


def old_alpha_bar(timesteps: Tensor) -> Tensor:
    return ALPHAS[timesteps].to(torch.float32).view(-1, 1, 1, 1)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_what_a_diffusion_says_of_latents_is_as_before_to_the_bit(prediction_type: str) -> None:
    process = replace(STABLE, prediction_type=prediction_type)
    clean, noise, raw = torch.randn(3, 5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ab = old_alpha_bar(TIMESTEPS)
    latents = ab.sqrt() * clean + (1 - ab).sqrt() * noise
    predicted = raw if prediction_type == "epsilon" else ab.sqrt() * raw + (1 - ab).sqrt() * latents
    assert torch.equal(process.add_noise(clean, noise, TIMESTEPS), latents)
    assert process.network_latents(latents, TIMESTEPS) is latents
    assert torch.equal(process.output_of(raw, latents, TIMESTEPS), predicted)
    assert torch.equal(process.target(clean, noise, TIMESTEPS), noise)
    assert torch.equal(process.noise_from(predicted, latents, TIMESTEPS), predicted)
    expected = (latents - (1 - ab).sqrt() * predicted) / ab.sqrt()
    assert torch.equal(process.clean_from(predicted, latents, TIMESTEPS), expected)
    expected = (latents - ab.sqrt() * clean) / (1 - ab).sqrt()
    assert torch.equal(process.target_given(latents, clean, TIMESTEPS), expected)
    flat = ALPHAS[TIMESTEPS]
    assert torch.equal(process.noise_share(TIMESTEPS), (1 - flat).sqrt() / (flat.sqrt() + (1 - flat).sqrt()))
    drawn, expected = (torch.Generator().manual_seed(3) for _ in range(2))
    assert torch.equal(process.random_timestep(drawn), torch.randint(1000, (), generator=expected))


def test_log_probs_are_as_before_to_the_bit() -> None:
    latents, noise, after = torch.randn(3, 10, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    old, chain = old_schedule(STABLE, 10, "ddim", 1.0), STABLE.chain(Sampler(kind="ddim", num_steps=10))
    steps = torch.arange(10)

    def per_row(name: str) -> Tensor:
        return old[name][steps].to(torch.float32).view(-1, 1, 1, 1)

    mean = per_row("latent_weight") * latents + per_row("output_weight") * noise
    sigma = per_row("sigma")
    constant = sigma.log() + 0.5 * math.log(2 * math.pi)
    expected = (-0.5 * ((after - mean) / sigma).square() - constant).flatten(1).mean(1)
    assert torch.equal(log_density(after, chain.mean(latents, noise, steps), chain.sigma[steps]), expected)
