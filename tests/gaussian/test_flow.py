"""The analytic world as a flow: marginals of every sampler, and the optimum in both parametrisations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from rfbench.core.policy import Policy
from rfbench.core.rollout import denoise
from rfbench.errors import InputError
from rfbench.planning.plan import make_outline, make_plan
from rfbench.running.folder import RunFolder
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.loading import load_suite
from rfbench.suite.suite import Finetune, Sampler, TrainingSampler
from rfbench.worlds.gaussian import closed_forms, world
from rfbench.worlds.gaussian.model import Gaussian, GaussianConfig

EXACT = closed_forms.exact_velocity(world.DATA_STD)
VARIANCE = world.DATA_STD**2
Way = Literal["flow", "converted"] | None


def moments(kind: str, num_steps: int, std: float = world.DATA_STD, **settings: Any) -> tuple[float, float]:
    """Mean and variance of the chain's end for data of mean 1, by recursion over its steps."""
    schedule = world.flow().chain(Sampler(kind=kind, num_steps=num_steps, **settings))
    chain = closed_forms.reference_chain(schedule, closed_forms.exact_velocity(std))
    mean, variance = 0.0, float(schedule.initial_std) ** 2
    for gain, of_mean, sigma in zip(chain.latent_gain, chain.mean_gain, chain.sigma, strict=True):
        mean, variance = float(gain) * mean + float(of_mean), float(gain) ** 2 * variance + float(sigma) ** 2
    return mean, variance


def test_the_velocity_is_the_posterior_mean() -> None:
    """E[eps - x_0 | x_s] by integrating over x_0 on a grid, in one dimension."""
    mean, std, share, latent = 0.8, 0.5, 0.3, -0.4
    clean = torch.linspace(mean - 8 * std, mean + 8 * std, 20_001, dtype=torch.float64)
    noise = (latent - (1 - share) * clean) / share
    density = (-0.5 * ((clean - mean) / std).square() - 0.5 * noise.square()).exp()
    arguments = torch.tensor([latent, mean, share], dtype=torch.float64)
    exact = closed_forms.posterior_velocity(arguments[0], arguments[1], std, arguments[2])
    torch.testing.assert_close(exact, ((noise - clean) * density).sum() / density.sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("kind", "settings", "at_640"),
    [
        ("ddpm", {}, 0.012),
        ("ddim", {"eta": 0.5}, 0.007),
        ("ode", {}, 0.005),
        ("flow-sde", {}, 0.005),
        ("flow-sde", {"noise_level": math.sqrt(2)}, 1e-5),
        ("dance-sde", {}, 0.005),
    ],
)
def test_the_marginal_is_kept_as_steps_grow(kind: str, settings: dict[str, Any], at_640: float) -> None:
    """The mean at any number of steps; of the variance the relative error falls."""
    errors = []
    for num_steps in (10, 160, 640, 2560):
        mean, variance = moments(kind, num_steps, **settings)
        assert mean == pytest.approx(1, abs=1e-12)
        errors.append(abs(variance / VARIANCE - 1))
    assert errors[2] < at_640
    assert errors[3] < 0.7 * errors[2] < errors[0]


def test_cps_loses_variance_however_many_steps() -> None:
    """Its sigma does not shrink with the step, while x_0 is only known on average: a third is lost."""
    mean, variance = moments("cps", 2560)
    assert mean == pytest.approx(1, abs=1e-12)
    assert variance / VARIANCE == pytest.approx(0.65, abs=0.01)


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "ode", "cps"])
def test_one_point_is_reached_exactly_in_any_number_of_steps(kind: str) -> None:
    """Where the network knows x_0, samplers that keep coefficients are at the noise level that they say."""
    for num_steps in (2, 10, 50):
        mean, variance = moments(kind, num_steps, std=0.0)
        assert mean == pytest.approx(1, abs=1e-12)
        assert variance < 1e-24


def test_flow_sde_at_sqrt_2_draws_the_images_of_ddpm() -> None:
    """With common noise, the root mean square difference of two images, in standard deviations of the data."""

    def images(kind: str, num_steps: int, **settings: Any) -> Tensor:
        drawn = torch.randn(num_steps + 1, 2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        schedule = world.flow().chain(Sampler(kind=kind, num_steps=num_steps, **settings))
        chain = closed_forms.reference_chain(schedule, EXACT)
        x = drawn[0]
        for k in range(num_steps):
            x = chain.latent_gain[k] * x + chain.mean_gain[k] + chain.sigma[k] * drawn[k + 1]
        return x / world.DATA_STD

    errors = [
        float((images("flow-sde", n, noise_level=math.sqrt(2)) - images("ddpm", n)).square().mean().sqrt())
        for n in (40, 160, 640)
    ]
    assert errors[2] < 0.02
    assert errors[2] < errors[1] / 3 < errors[0] / 9


def make_policy(process: Way, kind: str, num_steps: int = world.NUM_TIMESTEPS, **settings: Any) -> Policy:
    model = Gaussian(GaussianConfig(process=process), torch.device("cpu"))
    schedule = model.process.chain(Sampler(kind=kind, num_steps=num_steps, **settings))
    return Policy(model, schedule, guidance_scale=1, finetune=Finetune())


def shifted(policy: Policy) -> Policy:
    shape = policy.trainable()["shift"].shape
    policy.load_state_dict({"shift": 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(1))})
    return policy


@pytest.mark.parametrize("kind", ["ode", "ddim", "flow-sde", "cps"])
def test_a_converted_model_draws_the_images_of_the_diffusion(kind: str) -> None:
    """The finetuned policy, in fp32 as rollouts have it; log-prob ratios to the reference are the same as well."""
    images, ratios = [], []
    for process in (None, "converted"):
        policy = shifted(make_policy(process, kind))  # type: ignore[arg-type]
        condition = policy.encode_prompts(world.PROMPTS)
        drawn = torch.randn(8, 11, 2, generator=torch.Generator().manual_seed(0))
        latents, ratio = drawn[:, 0], torch.zeros(8)
        for steps, before, _, latents in denoise(policy, condition, drawn):
            if kind != "ode":
                ratio += policy.log_probs(before, latents, steps, condition).detach()
                ratio -= policy.log_probs(before, latents, steps, condition, weights="reference").detach()
        images.append(latents)
        ratios.append(ratio)
    torch.testing.assert_close(images[1], images[0], rtol=0, atol=2e-5)
    torch.testing.assert_close(ratios[1], ratios[0], rtol=0, atol=2e-4)


def test_a_converted_model_has_the_optimum_of_the_diffusion() -> None:
    """Expected reward, KL, J and regret of one shifted policy in both parametrisations."""
    found = []
    for process in (None, "converted"):
        policy = shifted(make_policy(process, "ddim"))  # type: ignore[arg-type]
        found.append(policy.model.exact_measures(policy.schedule, world.PROMPTS))
    for name, values in found[0].items():
        torch.testing.assert_close(found[1][name], values, rtol=1e-6, atol=1e-6)


def test_regret_of_the_flow_is_zero_at_its_optimum() -> None:
    policy = make_policy("flow", "flow-sde")
    model = policy.model
    assert isinstance(model, Gaussian)
    chain = closed_forms.reference_chain(policy.schedule, model.exact)
    beta = 4.0 / (world.NUM_TIMESTEPS * world.DIMENSIONS)
    optimum = closed_forms.optimal_shifts(chain, world.directions(), beta) / chain.sigma[:, None]
    before = model.exact_measures(policy.schedule, world.PROMPTS)["regret"]
    policy.load_state_dict({"shift": optimum.flip(1).float()})
    assert float(model.exact_measures(policy.schedule, world.PROMPTS)["regret"].abs().max()) < 1e-10
    assert float(before.min()) > 0.1


@pytest.mark.parametrize("process", [None, "flow"])
def test_the_suite_takes_a_process_by_name(process: str | None) -> None:
    """The option that is not set is no part of the hash."""
    overrides = [f"model.process={process}", "sampler.kind=flow-sde"] if process else []
    outline = make_outline(load_suite("optimum-gaussian", overrides), "prdp", seed=0)
    assert (outline.suite_hash == "386213bee3a1be7b") == (process is None)


def test_what_a_flow_world_cannot_do_is_named() -> None:
    suite = load_suite("optimum-gaussian", ["model.process=flow"])
    with pytest.raises(InputError, match=r"9 of 10 carry a gradient; use --set sampler\.kind=flow-sde"):
        make_outline(suite, "prdp", seed=0).open()


@pytest.mark.parametrize(
    ("label", "sampler"),
    [
        ("prdp", None),
        ("dpok", None),
        ("rwr", None),
        ("crd", None),
        ("dpo", None),
        ("awm", {"kind": "ode"}),
        ("nft", {"kind": "dance-sde", "noise_level": 0.5}),
        ("grpo", {"window": {"size": 3}}),
    ],
)
def test_every_kind_of_algorithm_trains_on_a_flow(label: str, sampler: dict[str, Any] | None, tmp_path: Path) -> None:
    """On trajectories, in a window, on the forward process, with a sampler of its own; and starts at a ratio of 1."""
    suite = load_suite("optimum-gaussian", ["model.process=flow", "sampler.kind=flow-sde", "epochs=1"])
    settings = suite.settings_for(label)
    own = TrainingSampler(**sampler) if sampler else None
    settings = settings.model_copy(update={"sampler": own, "images_per_prompt": 16})
    suite = suite.model_copy(update={"algorithms": {label: settings}})
    folder = RunFolder(train(make_plan(suite, label, seed=0), tmp_path, Quiet()), writer=False)
    record = folder.read("metrics")[0]
    assert record.reward_mean == pytest.approx(1, abs=0.2)  # of 128 images with a standard deviation of 0.5
    assert (record.start_error or 0.0) < 1e-6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "sampler.kind=euler",
            r"sampler.kind is 'euler'.*; the samplers are ddpm, ddim, ode, flow-sde, dance-sde, cps",
        ),
        (
            "sampler.kind=ode",
            r"sampler.kind is 'ode', which leaves no step with noise, .*no KL to evaluate; use another",
        ),
        ("sampler.noise_level=0.5", r"sampler.noise_level is 0.5, but the noise of ddim is set by eta; leave it out"),
    ],
)
def test_a_sampler_that_a_suite_cannot_have_is_named(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_outline(load_suite("optimum-gaussian", [override]), "prdp", seed=0)


def test_another_kind_in_training_has_a_scale_of_its_own() -> None:
    """The suite's eta is of its own sampler: an algorithm's flow-sde or ode neither needs nor trips over it."""
    evaluated = Sampler(kind="ddim", eta=0.5, num_steps=10)
    assert TrainingSampler(kind="ode").over(evaluated) == Sampler(kind="ode", num_steps=10)
    assert TrainingSampler(num_steps=5).over(evaluated).eta == 0.5
    noisy = Sampler(kind="flow-sde", noise_level=1.2, num_steps=10)
    assert TrainingSampler(kind="cps").over(noisy).noise_level is None
