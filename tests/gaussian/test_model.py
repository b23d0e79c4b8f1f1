"""The plugins: the policy's steps and samples are those of the closed forms, in the units they claim."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rfbench.core import keyed_random
from rfbench.core.policy import Policy
from rfbench.core.rollout import denoise
from rfbench.core.schedule import kl_divergence
from rfbench.errors import InputError
from rfbench.suite.settings import Settings
from rfbench.suite.suite import Finetune, Sampler
from rfbench.worlds.gaussian import closed_forms, picture, world
from rfbench.worlds.gaussian.model import Gaussian, GaussianConfig
from rfbench.worlds.gaussian.prompts import GaussianPrompts
from rfbench.worlds.gaussian.reward import GaussianLinear

CPU = torch.device("cpu")
BETA = 4.0
BETA_NATS = BETA / (world.NUM_TIMESTEPS * world.DIMENSIONS)


def make_policy(num_steps: int = world.NUM_TIMESTEPS, skip_last_steps: int = 0, guidance_scale: float = 1) -> Policy:
    model = Gaussian(GaussianConfig(beta=BETA), CPU)
    schedule = model.process.chain(Sampler(kind="ddim", num_steps=num_steps, skip_last_steps=skip_last_steps))
    return Policy(model, schedule, guidance_scale=guidance_scale, finetune=Finetune())


def reference_chain(policy: Policy) -> closed_forms.Chain:
    assert isinstance(policy.model, Gaussian)
    return closed_forms.reference_chain(policy.schedule, policy.model.exact)


def set_shift(policy: Policy, shift: Tensor) -> None:
    """Sets the parameters from ``(prompts, steps, dimensions)`` in sampling order, in units of sigma."""
    policy.load_state_dict({"shift": shift.flip(1).float()})


def optimum() -> Tensor:
    """The optimal parameters in sampling order, ``(prompts, steps, dimensions)``."""
    chain = reference_chain(make_policy())
    return closed_forms.optimal_shifts(chain, world.directions(), BETA_NATS) / chain.sigma[:, None]


@pytest.fixture
def policy() -> Policy:
    """A policy far from its reference, by a different shift for every prompt and step."""
    policy = make_policy()
    set_shift(policy, 0.5 * torch.randn(policy.trainable()["shift"].shape, generator=keyed_random.generator("shift")))
    return policy


def test_every_step_has_a_density() -> None:
    schedule = make_policy().schedule
    assert len(schedule.objective_steps) == schedule.num_steps == world.NUM_TIMESTEPS


def test_the_reference_is_the_exact_denoiser_and_a_unit_of_shift_is_one_sigma(policy: Policy) -> None:
    condition = policy.encode_prompts(world.PROMPTS)
    latents = torch.randn(8, 2, generator=keyed_random.generator("latents"))
    alphas_cumprod = world.diffusion().alphas_cumprod
    for step in range(world.NUM_TIMESTEPS):
        steps = torch.full((8,), step)
        timesteps = policy.schedule.timesteps[steps]
        exact = closed_forms.posterior_noise(
            latents.double(), world.directions(), world.DATA_STD, alphas_cumprod[timesteps[0]]
        )
        predicted = policy.predict(latents, timesteps, condition, weights="reference")
        torch.testing.assert_close(predicted.double(), exact, rtol=1e-5, atol=1e-6)
        moved = policy.step_mean(latents, steps, condition) - policy.step_mean(
            latents, steps, condition, weights="reference"
        )
        expected = policy.schedule.sigma[step] * policy.trainable()["shift"][:, timesteps[0]]
        torch.testing.assert_close(moved.double(), expected.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_steps", [10, 5])
def test_samples_agree_with_the_exact_measures(policy: Policy, num_steps: int) -> None:
    """20,000 trajectories of two prompts: mean reward within four standard errors, and the very KL of each."""
    weights, policy = policy.state_dict(), make_policy(num_steps)
    policy.load_state_dict(weights)
    prompts = [world.PROMPTS[1], world.PROMPTS[6]]
    count = 20_000
    drawn = torch.randn(2 * count, num_steps + 1, 2, generator=keyed_random.generator("trajectories"))
    rows = torch.arange(2).repeat_interleave(count)
    condition = {name: value[rows] for name, value in policy.encode_prompts(prompts).items()}
    kl, clean = torch.zeros(2 * count), drawn[:, 0]
    for steps, latents, mean, next_latents in denoise(policy, condition, drawn):
        reference_mean = policy.step_mean(latents, steps, condition, weights="reference")
        kl += kl_divergence(mean, reference_mean, policy.schedule.sigma[steps])
        clean = next_latents
    rewards = GaussianLinear(Settings(), CPU)(policy.decode(clean), [prompts[row] for row in rows]).view(2, count)
    exact = policy.model.exact_measures(policy.schedule, prompts)
    deviation = (rewards.mean(1) - exact["expected_reward"]) / (rewards.std(1) / math.sqrt(count))
    assert float(deviation.abs().max()) < 4
    torch.testing.assert_close(
        kl.double().view(2, count), exact["expected_kl"][:, None].expand(2, count), rtol=1e-4, atol=0
    )


def test_j_is_in_the_unit_of_every_beta(policy: Policy) -> None:
    """J = E[r] - beta kl_per_dimension, with the KL averaged over steps and dimensions."""
    measures = policy.model.exact_measures(policy.schedule, world.PROMPTS)
    per_dimension = measures["expected_kl"] / (world.NUM_TIMESTEPS * world.DIMENSIONS)
    torch.testing.assert_close(measures["J"], measures["expected_reward"] - BETA * per_dimension)
    assert measures.keys() == policy.model.exact_units.keys()


def test_regret_is_zero_at_the_optimum_and_grows_around_it() -> None:
    policy = make_policy()
    set_shift(policy, optimum())
    assert float(policy.model.exact_measures(policy.schedule, world.PROMPTS)["regret"].abs().max()) < 1e-12
    set_shift(policy, 1.1 * optimum())
    more = policy.model.exact_measures(policy.schedule, world.PROMPTS)["regret"]
    set_shift(policy, 0.9 * optimum())
    less = policy.model.exact_measures(policy.schedule, world.PROMPTS)["regret"]
    assert float(more.min()) > 1e-3
    torch.testing.assert_close(more, less, rtol=1e-4, atol=0)


@pytest.mark.parametrize("shared_start", [True, False])
def test_log_ratios_of_the_optimum_predict_reward_differences(shared_start: bool) -> None:
    """u_i - u_j = (r_i - r_j) / beta: exactly for one x_T, else up to the start's part of the reward, G_T w . x_T."""
    policy = make_policy()
    set_shift(policy, optimum())
    count, prompt = 512, world.PROMPTS[3]
    drawn = torch.randn(count, world.NUM_TIMESTEPS + 1, 2, generator=keyed_random.generator("pairs"))
    if shared_start:
        drawn[:, 0] = drawn[0, 0]
    condition = policy.encode_prompts([prompt] * count)
    u, clean = torch.zeros(count), drawn[:, 0]
    for steps, latents, _, next_latents in denoise(policy, condition, drawn):
        for sign, weights in ((1, "policy"), (-1, "reference")):
            log_probs = policy.log_probs(latents, next_latents, steps, condition, weights=weights)
            u += sign * log_probs.detach()
        clean = next_latents
    u = u.double() / world.NUM_TIMESTEPS
    rewards = GaussianLinear(Settings(), CPU)(clean, [prompt] * count)
    error = (u - u.mean()) - (rewards - rewards.mean()) / BETA
    if not shared_start:
        chain = reference_chain(policy)
        start = chain.initial_reach * (drawn[:, 0].double() @ world.directions()[3])
        assert float(error.std()) == pytest.approx(float(start.std()) / BETA, rel=1e-3)
        error += (start - start.mean()) / BETA
    assert float(error.abs().max()) < 1e-5


def test_guidance_has_no_meaning_here() -> None:
    policy = make_policy(guidance_scale=2)
    with pytest.raises(InputError, match=r"no unconditional prompt; use --set sampler.guidance_scale=1"):
        policy.step_mean(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), policy.encode_prompts(world.PROMPTS[:1]))


def test_a_step_outside_of_the_objective_is_refused() -> None:
    policy = make_policy(skip_last_steps=2)
    with pytest.raises(InputError, match="8 of 10 carry a gradient; use --set sampler"):
        policy.model.exact_measures(policy.schedule, world.PROMPTS)


def test_an_unknown_prompt_is_named() -> None:
    with pytest.raises(InputError, match=r"no prompt 'a point at 44 degrees'.*'a point at 45 degrees'"):
        world.index("a point at 44 degrees")


def test_the_reward_refuses_pixels() -> None:
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"scores points \(m, 2\).*model 'gaussian' alone"):
        GaussianLinear(Settings(), CPU)(pixels, list(world.PROMPTS[:1]))


def test_the_prompt_set_is_the_world() -> None:
    assert tuple(GaussianPrompts(Settings())) == world.PROMPTS


def test_a_picture_shows_the_point() -> None:
    pictures = picture.draw(torch.tensor([[2.0, 1.0], [99.0, 0.0]]))
    assert pictures.shape == (2, 3, 32, 32)
    row, column = divmod(int(pictures[0, 0].argmin()), 32)
    scale = 31 / (2 * picture.EXTENT)
    assert (row, column) == (round((picture.EXTENT - 1) * scale), round((picture.EXTENT + 2) * scale))
    assert int(pictures[1].min()) == 255
