"""The closed forms against brute force: conditioning, joint normals, Monte Carlo and numerical optimisation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from rfbench.core.schedule import Schedule
from rfbench.suite.suite import Sampler
from rfbench.worlds.gaussian import closed_forms, world
from tests.gaussian import joint

STEPS, DIMENSIONS = 5, 3


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=["diffusion", "flow"])
def schedule(request: pytest.FixtureRequest) -> Schedule:
    if request.param == "flow":
        return world.flow().chain(Sampler(kind="flow-sde", num_steps=STEPS))
    return world.diffusion().chain(Sampler(kind="ddim", num_steps=STEPS))


@pytest.fixture(scope="module")
def chain(schedule: Schedule) -> closed_forms.Chain:
    flow = schedule.timesteps.is_floating_point()
    exact = closed_forms.exact_velocity(joint.STD) if flow else closed_forms.exact_noise(world.diffusion(), joint.STD)
    return closed_forms.reference_chain(schedule, exact)


MEANS, DIRECTIONS = normal(2, DIMENSIONS, seed=0), normal(2, DIMENSIONS, seed=1)
SHIFTS = 0.3 * normal(2, STEPS, DIMENSIONS, seed=2)


def test_the_denoiser_is_the_posterior_mean_of_the_noise() -> None:
    """E[eps | x_t] by integrating over x_0 on a grid, in one dimension."""
    mean, std, alpha_bar, latent = 0.8, 0.5, 0.6, -0.4
    clean = torch.linspace(mean - 8 * std, mean + 8 * std, 20_001, dtype=torch.float64)
    noise = (latent - alpha_bar**0.5 * clean) / (1 - alpha_bar) ** 0.5
    density = (-0.5 * ((clean - mean) / std).square() - 0.5 * noise.square()).exp()
    arguments = torch.tensor([latent, mean, alpha_bar], dtype=torch.float64)
    exact = closed_forms.posterior_noise(arguments[0], arguments[1], std, arguments[2])
    torch.testing.assert_close(exact, (noise * density).sum() / density.sum(), rtol=1e-12, atol=0)


def test_chain_expected_reward_and_kl_are_those_of_the_joint_normal(
    schedule: Schedule, chain: closed_forms.Chain
) -> None:
    measures = closed_forms.measures(chain, MEANS, DIRECTIONS, SHIFTS, joint.BETA)
    for c in range(2):
        policy = joint.trajectories(schedule, MEANS[c], SHIFTS[c])
        reference = joint.trajectories(schedule, MEANS[c], torch.zeros_like(SHIFTS[c]))
        reward = policy.mean[-DIMENSIONS:] @ DIRECTIONS[c]
        kl = kl_divergence(policy, reference)
        torch.testing.assert_close(measures["expected_reward"][c], reward, rtol=1e-10, atol=0)
        torch.testing.assert_close(measures["expected_kl"][c], kl, rtol=1e-8, atol=0)
        torch.testing.assert_close(measures["J"][c], reward - joint.BETA * kl, rtol=1e-8, atol=0)


def maximise(objective: Callable[[], Tensor], parameters: list[Tensor]) -> float:
    """The maximum that L-BFGS finds from ``parameters``, which it changes in place."""
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -objective()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return float(objective().detach())


def optimum(chain: closed_forms.Chain) -> float:
    best = closed_forms.optimal_shifts(chain, DIRECTIONS[:1], joint.BETA)
    measures = closed_forms.measures(chain, MEANS[:1], DIRECTIONS[:1], best, joint.BETA)
    assert float(measures["regret"]) == 0
    return float(measures["J"])


def test_the_optimum_is_what_numerical_optimisation_finds(schedule: Schedule, chain: closed_forms.Chain) -> None:
    shifts = torch.zeros(STEPS, DIMENSIONS, dtype=torch.float64, requires_grad=True)
    reference = joint.trajectories(schedule, MEANS[0], torch.zeros_like(shifts))
    found = maximise(
        lambda: joint.objective(joint.trajectories(schedule, MEANS[0], shifts), reference, DIRECTIONS[0]), [shifts]
    )
    assert found == pytest.approx(optimum(chain), rel=1e-9)
    best = closed_forms.optimal_shifts(chain, DIRECTIONS[:1], joint.BETA)[0]
    torch.testing.assert_close(shifts.detach(), best, rtol=1e-4, atol=1e-5)


def test_shifts_alone_reach_the_optimum_of_all_affine_normal_steps(
    schedule: Schedule, chain: closed_forms.Chain
) -> None:
    """From a random start, free gains and variances end at the reference's: they buy nothing."""
    shifts = (0.1 * normal(STEPS, DIMENSIONS, seed=3)).requires_grad_()
    gains, log_scales = (0.1 * normal(STEPS, seed=seed) for seed in (4, 5))
    gains.requires_grad_()
    log_scales.requires_grad_()
    reference = joint.trajectories(schedule, MEANS[0], torch.zeros_like(shifts))
    found = maximise(
        lambda: joint.objective(
            joint.trajectories(schedule, MEANS[0], shifts, gains, log_scales), reference, DIRECTIONS[0]
        ),
        [shifts, gains, log_scales],
    )
    assert found == pytest.approx(optimum(chain), rel=1e-8)
    assert float(gains.detach().abs().max()) < 1e-4
    assert float(log_scales.detach().abs().max()) < 1e-4


def test_a_free_start_adds_what_the_readme_says(schedule: Schedule, chain: closed_forms.Chain) -> None:
    """Tilting p(x_T) too, as Lemma A.3 does, is worth |G_T w|^2 / (2 beta) more."""
    shifts = torch.zeros(STEPS, DIMENSIONS, dtype=torch.float64, requires_grad=True)
    start = torch.zeros(DIMENSIONS, dtype=torch.float64, requires_grad=True)
    reference = joint.trajectories(schedule, MEANS[0], torch.zeros_like(shifts))
    found = maximise(
        lambda: joint.objective(joint.trajectories(schedule, MEANS[0], shifts, start=start), reference, DIRECTIONS[0]),
        [shifts, start],
    )
    extra = float((chain.initial_reach * DIRECTIONS[0]).square().sum()) / (2 * joint.BETA)
    assert extra > 1e-3
    assert found - optimum(chain) == pytest.approx(extra, rel=1e-6)


def test_regret_is_the_squared_distance_to_the_optimum(chain: closed_forms.Chain) -> None:
    """J is quadratic: J* - J = beta KL between the two policies."""
    best = closed_forms.optimal_shifts(chain, DIRECTIONS, joint.BETA)
    regret = closed_forms.measures(chain, MEANS, DIRECTIONS, SHIFTS, joint.BETA)["regret"]
    torch.testing.assert_close(regret, joint.BETA * closed_forms.step_kl(chain, SHIFTS - best).sum(1))


def test_a_penalty_on_the_noise_has_an_optimum_of_its_own(schedule: Schedule, chain: closed_forms.Chain) -> None:
    """E[r] - penalty sum_k |eps_theta - eps_ref|^2, by numerical optimisation over the noise shifts."""
    penalty = 0.4
    noise_shifts = torch.zeros(1, STEPS, DIMENSIONS, dtype=torch.float64, requires_grad=True)
    weight = schedule.output_weight[:, None]

    def objective() -> Tensor:
        reward = closed_forms.expected_clean(chain, MEANS[:1], weight * noise_shifts) @ DIRECTIONS[0]
        return reward.sum() - penalty * noise_shifts.square().sum()

    found = maximise(objective, [noise_shifts])
    beta = closed_forms.noise_penalty_beta(schedule, penalty)
    best = closed_forms.optimal_shifts(chain, DIRECTIONS[:1], beta)
    torch.testing.assert_close(weight * noise_shifts.detach(), best, rtol=1e-4, atol=1e-6)
    assert float(closed_forms.measures(chain, MEANS[:1], DIRECTIONS[:1], best, beta)["J"]) == pytest.approx(found)
