"""The chain against diffusers' own schedulers and torch's own densities."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from rfbench.core.schedule import SPACINGS, NoiseSchedule, kl_divergence, log_density, make_schedule
from rfbench.errors import InputError
from rfbench.models.noise_schedule import read as read_noise_schedule

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def noise_schedule(scheduler: DDPMScheduler | DDIMScheduler, final: float = 1.0) -> NoiseSchedule:
    return NoiseSchedule(scheduler.alphas_cumprod, steps_offset=1, final_alpha_cumprod=final)


def test_ddpm_steps_equal_diffusers() -> None:
    scheduler = DDPMScheduler(**BETAS, clip_sample=False, steps_offset=1, timestep_spacing="leading")
    scheduler.set_timesteps(10)
    schedule = make_schedule(noise_schedule(scheduler), 10)
    assert schedule.timesteps.tolist() == scheduler.timesteps.tolist()
    latents, eps = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for step, timestep in enumerate(scheduler.timesteps):
        generator = torch.Generator().manual_seed(step)
        expected = scheduler.step(eps, timestep, latents, generator=generator).prev_sample
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(step))
        mean = schedule.mean(latents, eps, torch.tensor([step, step]))
        torch.testing.assert_close(mean + schedule.sigma[step].float() * noise, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_steps_equal_diffusers(eta: float, set_alpha_to_one: bool) -> None:
    scheduler = DDIMScheduler(**BETAS, clip_sample=False, steps_offset=1, set_alpha_to_one=set_alpha_to_one)
    scheduler.set_timesteps(20)
    final = float(scheduler.final_alpha_cumprod)
    if eta == 0:
        with pytest.raises(InputError, match="no denoising step is left"):
            make_schedule(noise_schedule(scheduler, final), 20, kind="ddim", eta=eta)
        return
    schedule = make_schedule(noise_schedule(scheduler, final), 20, kind="ddim", eta=eta)
    assert (schedule.sigma[-1] == 0) == set_alpha_to_one
    assert (19 in schedule.objective_steps.tolist()) != set_alpha_to_one  # a step without noise has no density
    latents, eps, noise = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for step, timestep in enumerate(scheduler.timesteps):
        expected = scheduler.step(eps, timestep, latents, eta=eta, variance_noise=noise).prev_sample
        mean = schedule.mean(latents, eps, torch.tensor([step, step]))
        torch.testing.assert_close(mean + schedule.sigma[step].float() * noise, expected, atol=1e-6, rtol=1e-6)


def test_log_density_is_the_mean_over_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, mean = torch.randn(2, 5, 4, 8, 8, generator=generator)
    sigma = torch.rand(5, generator=generator) + 0.01
    normal = torch.distributions.Normal(mean, sigma.view(-1, 1, 1, 1))
    torch.testing.assert_close(
        log_density(latents, mean, sigma), normal.log_prob(latents).mean((1, 2, 3)), atol=1e-6, rtol=1e-6
    )


def test_kl_is_the_sum_over_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, other = torch.randn(2, 5, 4, 8, 8, generator=generator)
    sigma = torch.rand(5, generator=generator) + 0.1
    scale = sigma.view(-1, 1, 1, 1)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, scale), torch.distributions.Normal(other, scale)
    )
    torch.testing.assert_close(kl_divergence(mean, other, sigma), expected.sum((1, 2, 3)))


def test_skipped_steps_carry_no_objective() -> None:
    base = noise_schedule(DDPMScheduler(**BETAS))
    assert make_schedule(base, 10).objective_steps.tolist() == list(range(9))  # the last has no noise
    assert make_schedule(base, 10, skip_last_steps=2).objective_steps.tolist() == list(range(8))
    with pytest.raises(InputError, match=r"skip_last_steps 10.*lower sampler.skip_last_steps"):
        make_schedule(base, 10, skip_last_steps=10)
    with pytest.raises(InputError, match=r"num_steps is 1001.*1000 training timesteps"):
        make_schedule(base, 1001)


@pytest.mark.parametrize("steps", [1, 7, 10, 20, 50, 999])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_every_spacing_is_diffusers(kind: str, spacing: str, steps: int) -> None:
    scheduler_class = DDPMScheduler if kind == "ddpm" else DDIMScheduler
    file = {
        "_class_name": "PNDMScheduler",
        **BETAS,
        "clip_sample": False,
        "steps_offset": 1,
        "timestep_spacing": spacing,
    }
    scheduler = scheduler_class.from_config(file)
    scheduler.set_timesteps(steps)
    if steps == 1:  # the only step arrives at a clean image and has no noise
        with pytest.raises(InputError, match="no denoising step is left"):
            make_schedule(read_noise_schedule(file), steps, kind=kind)
        return
    schedule = make_schedule(read_noise_schedule(file), steps, kind=kind)
    assert schedule.timesteps.tolist() == scheduler.timesteps.tolist()
    latents, eps, noise = torch.randn(3, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for step in {0, steps // 2, max(steps - 2, 0), steps - 1}:
        timestep = scheduler.timesteps[step]
        if kind == "ddim":
            expected = scheduler.step(eps, timestep, latents, eta=1.0, variance_noise=noise).prev_sample
        else:
            drawn = torch.randn(latents.shape, generator=torch.Generator().manual_seed(step))
            expected = scheduler.step(eps, timestep, latents, generator=torch.Generator().manual_seed(step)).prev_sample
            noise = drawn
        ours = schedule.mean(latents, eps, torch.tensor([step])) + schedule.sigma[step].float() * noise
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_as_many_steps_as_the_model_has() -> None:
    """With an offset the first step would be a timestep that the model does not have."""
    base = noise_schedule(DDPMScheduler(**BETAS))
    with pytest.raises(
        InputError, match=r"num_steps is 1000, .* its first step is timestep 1000, .*; use 999 or fewer"
    ):
        make_schedule(base, 1000)
    assert make_schedule(replace(base, steps_offset=0), 1000).num_steps == 1000
