"""The shipped suite, run as anyone runs it: who reaches the KL-regularised optimum, and who runs past it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from rfbench.suite.suite import Sampler
from rfbench.worlds.gaussian import closed_forms, world
from rfbench_benchmarks.pages.gaussian_table import GaussianRun, run

pytestmark = pytest.mark.slow

Runs = Callable[[str], GaussianRun]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run of the suite by label, made once."""
    root = tmp_path_factory.mktemp("results")
    return lambda label: run(label, seed=0, root=root)


@pytest.mark.parametrize("label", ["prdp", "prdp-no-clip", "prdp-offline"])
def test_prdp_reaches_the_optimum(runs: Runs, label: str) -> None:
    assert runs(label).gap_closed() > 0.995


def test_prdp_with_a_shared_start_reaches_it_exactly(runs: Runs) -> None:
    finished = runs("prdp-shared-start")
    assert finished.gap_closed() > 1 - 1e-8
    error = finished.prediction_error()
    assert error is not None
    assert error < 1e-4


def test_prdp_predicts_reward_differences_up_to_the_start(runs: Runs) -> None:
    """The error that is left is the part of the reward that x_T carries, which no step's log-ratio can hold."""
    process = world.diffusion()
    schedule = process.chain(Sampler(kind="ddim", num_steps=world.NUM_TIMESTEPS))
    chain = closed_forms.reference_chain(schedule, closed_forms.exact_noise(process, world.DATA_STD))
    steps = (chain.reach * chain.sigma).square().sum()
    start = chain.initial_reach.square()
    floor = math.sqrt(float(start / (start + steps)))
    assert 0.04 < floor < 0.05
    error = runs("prdp").prediction_error()
    assert error is not None
    assert 0.9 * floor < error < 1.5 * floor


def test_sampled_and_exact_measures_agree(runs: Runs) -> None:
    finished = runs("prdp")
    assert finished.curve("kl") == pytest.approx(finished.curve("expected_kl"), rel=1e-4)
    # common random numbers: the sampled mean is off by the same luck of 64 images at every evaluation
    luck = [sampled - exact for sampled, exact in zip(
        finished.curve("gaussian-linear"), finished.curve("expected_reward"), strict=True
    )]  # fmt: skip
    assert max(luck) - min(luck) < 1e-4
    assert abs(luck[0]) < 4 * 0.4 / math.sqrt(64)


@pytest.mark.parametrize("label", ["ddpo", "ddpo-group", "rwr", "rwr-sparse"])
def test_without_a_kl_term_the_reward_grows_past_the_optimum_and_the_kl_with_it(runs: Runs, label: str) -> None:
    finished = runs(label)
    regret, rewards, kl = (finished.curve(measure) for measure in ("regret", "expected_reward", "expected_kl"))
    gain_of_optimum = 2 * regret[0]  # J is quadratic: half of the optimum's gain in reward is paid in KL
    assert rewards[-1] - rewards[0] > 2 * gain_of_optimum
    half = len(kl) // 2
    assert all(later > earlier for earlier, later in zip(kl[half:], kl[half + 1 :], strict=False))
    assert min(regret) < 0.3 * regret[0] < regret[0] < regret[-1]


def test_grpo_with_the_optimum_s_own_kl_weight_reaches_it_but_for_noise(runs: Runs) -> None:
    """With rewards that nothing is divided by, its loss is a sample of -J; the published weight is another J's."""
    assert 0.9 < runs("grpo-at-beta").gap_closed() < runs("prdp").gap_closed()
    assert runs("grpo").gap_closed() < 0.8


def test_dpok_nears_the_optimum_of_its_own_objective(runs: Runs) -> None:
    """Its penalty on the predicted noise is a KL with other weights per step, so its optimum is another one."""
    finished = runs("dpok")
    closed, best_possible = finished.own_gap_closed()
    assert closed > 0.9
    assert 0.45 < best_possible < 0.48
    assert finished.gap_closed() < 0.6
