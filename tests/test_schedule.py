"""The chain against diffusers' own schedulers and torch's own densities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from rfbench.core.noising.diffusion import SPACINGS, Diffusion
from rfbench.core.schedule import Schedule, kl_divergence, log_density, window_start
from rfbench.errors import InputError
from rfbench.models.noise_schedule import read
from rfbench.suite.suite import Sampler, Window

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def diffusion(scheduler: DDPMScheduler | DDIMScheduler, final: float = 1.0) -> Diffusion:
    return Diffusion(scheduler.alphas_cumprod, steps_offset=1, final_alpha_cumprod=final)


def chain(process: Diffusion, num_steps: int, **sampler: Any) -> Schedule:
    return process.chain(Sampler(num_steps=num_steps, **sampler))


def test_ddpm_steps_equal_diffusers() -> None:
    scheduler = DDPMScheduler(**BETAS, clip_sample=False, steps_offset=1, timestep_spacing="leading")
    scheduler.set_timesteps(10)
    schedule = chain(diffusion(scheduler), 10)
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
    schedule = chain(diffusion(scheduler, final), 20, kind="ddim", eta=eta)
    if eta == 0:
        assert bool((schedule.sigma == 0).all())
        assert schedule.objective_steps.tolist() == list(range(20))  # noise levels, for objectives without densities
    else:
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
    base = diffusion(DDPMScheduler(**BETAS))
    assert chain(base, 10).objective_steps.tolist() == list(range(9))  # the last has no noise
    assert chain(base, 10, skip_last_steps=2).objective_steps.tolist() == list(range(8))
    with pytest.raises(InputError, match=r"1 steps, skip_last_steps 0, and 1 steps without noise; lower"):
        chain(base, 1)
    with pytest.raises(InputError, match=r"num_steps is 1001.*1000 training timesteps"):
        chain(base, 1001)


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
            chain(read(file), steps, kind=kind)
        return
    schedule = chain(read(file), steps, kind=kind)
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
    base = diffusion(DDPMScheduler(**BETAS))
    with pytest.raises(
        InputError, match=r"num_steps is 1000, .* its first step is timestep 1000, .*; use 999 or fewer"
    ):
        chain(base, 1000)
    assert chain(replace(base, steps_offset=0), 1000).num_steps == 1000


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_a_window_keeps_its_steps_and_makes_the_others_deterministic(kind: str) -> None:
    """Outside of it they are those of DDIM with eta 0, as diffusers has them."""
    base = Diffusion(torch.linspace(0.999, 0.01, 1000, dtype=torch.float64))
    whole, schedule = chain(base, 10, kind=kind), chain(base, 10, kind=kind).windowed(3, 2)
    assert schedule.objective_steps.tolist() == [3, 4]
    assert torch.nonzero(schedule.sigma).flatten().tolist() == [3, 4]
    assert torch.equal(schedule.sigma[3:5], whole.sigma[3:5])
    assert torch.equal(schedule.output_weight[3:5], whole.output_weight[3:5])
    latents, eps = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = [*base.alphas_cumprod[whole.timesteps][1:].tolist(), 1.0]
    for step in (0, 2, 5, 8):
        ab = base.alphas_cumprod[whole.timesteps[step]]
        clean = (latents - (1 - ab).sqrt() * eps) / ab.sqrt()
        expected = ends[step] ** 0.5 * clean + (1 - ends[step]) ** 0.5 * eps
        torch.testing.assert_close(schedule.mean(latents, eps, torch.tensor([step])), expected)


def test_windows_start_in_the_first_half_or_move_forward_and_back() -> None:
    schedule = chain(Diffusion(torch.linspace(0.999, 0.01, 1000, dtype=torch.float64)), 10)  # 9 have noise
    generator = torch.Generator().manual_seed(0)
    drawn = {window_start(Window(size=2), schedule, 0, generator) for _ in range(200)}
    assert drawn == {0, 1, 2, 3, 4}
    assert {window_start(Window(size=8), schedule, 0, generator) for _ in range(50)} == {0, 1}
    forward = Window(size=7, moves="forward", every=2)
    assert [window_start(forward, schedule, epoch, generator) for epoch in range(8)] == [0, 0, 1, 1, 2, 2, 0, 0]
