"""A sampler of an algorithm's own: what training draws with it, what it costs, and what it leaves as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.core import keyed_random
from rfbench.core.algorithm import Algorithm
from rfbench.core.rollout import RolloutNeeds
from rfbench.errors import InputError
from rfbench.planning.plan import make_outline
from rfbench.plugins import registry
from rfbench.suite.suite import Sampler, Suite
from tests import tiny
from tests.runs import assert_same_run, exit_code_of_killed, lines, run

DETERMINISTIC = {"kind": "ddim", "num_steps": 3, "eta": 0, "guidance_scale": 1, "skip_last_steps": 0}


@pytest.fixture
def listed(suite: Suite) -> Callable[..., Suite]:
    """The suite with one algorithm's table, on a sampler of its own."""

    def make(label: str, sampler: dict[str, Any] | None, **table: Any) -> Suite:
        tables = {label: {"images_per_prompt": 4, "optimizer": {"learning_rate": 1e-3}, "sampler": sampler} | table}
        return Suite.model_validate(suite.model_dump() | {"algorithms": tables})

    return make


def test_images_are_those_of_the_deterministic_chain(listed: Callable[..., Suite]) -> None:
    made = tiny.make_run(tiny.plan(listed("nft", DETERMINISTIC), "nft"))
    rollout, policy = made.rollout(0), made.policy
    schedule = policy.process.chain(Sampler(kind="ddim", num_steps=3, eta=0))
    keys = [(0, "rollout", 0, image) for image in range(rollout.num_images)]
    latents = keyed_random.normal(keys, (4, *policy.model.latent_shape))[:, 0]
    with torch.no_grad():
        for step, timestep in enumerate(schedule.timesteps):
            condition = rollout.conditions(torch.arange(rollout.num_images))
            eps = policy.predict(latents, timestep.repeat(len(latents)), condition, guided=False)
            latents = schedule.mean(latents, eps, torch.full((len(latents),), step))
    assert torch.allclose(rollout.clean_latents, latents, atol=1e-4)


def test_the_evaluation_keeps_the_suites_sampler(listed: Callable[..., Suite], tmp_path: Path) -> None:
    own = run(listed("nft", DETERMINISTIC), tmp_path / "own", "nft")
    shared = run(listed("nft", None), tmp_path / "shared", "nft")
    before = [[record for record in lines(folder, "evals") if record["epoch"] == 0] for folder in (own, shared)]
    assert before[0] == before[1]
    assert lines(own, "metrics")[0]["reward_mean"] != lines(shared, "metrics")[0]["reward_mean"]


@pytest.mark.parametrize(
    ("label", "sampler"),
    [
        ("nft", DETERMINISTIC),
        ("crd", {"guidance_scale": 1}),
        ("rwr", {"num_steps": 7}),
        ("grpo", {"window": {"size": 2}}),
        ("prdp", {"window": {"size": 2, "moves": "forward", "every": 1}}),
        ("ddpo", {"kind": "ddim", "eta": 0.5, "num_steps": 3}),
    ],
)
def test_the_dry_run_counts_what_a_run_spends(
    listed: Callable[..., Suite], label: str, sampler: dict[str, Any]
) -> None:
    config = {"drop_zero_advantages": False} if label == "grpo" else {"passes": 1} if label == "rwr" else {}
    plan = tiny.plan(listed(label, sampler, config=config), label)
    made, told = tiny.make_run(plan), plan.epoch_cost()
    made.update(made.rollout(0))
    assert made.counters().denoiser_forwards == told.forwards
    assert made.counters().denoiser_backwards == told.backwards


@pytest.mark.parametrize(
    ("label", "config"),
    [
        ("ddpo", {"updates_per_epoch": 2}),
        ("prdp", {"beta": 0.01}),
        ("grpo", {}),
        ("dpok", {"batch_size": 20, "replay_size": 60, "updates_per_epoch": 2, "value_batch_size": 20}),
    ],
)
def test_the_ratio_starts_at_one_in_a_window_that_moves(
    listed: Callable[..., Suite], label: str, config: dict[str, Any]
) -> None:
    """DPOK's replay holds steps of windows that have moved on."""
    window = {"size": 2, "moves": "forward", "every": 1}
    made = tiny.make_run(tiny.plan(listed(label, {"window": window}, config=config), label))
    for epoch, steps in enumerate(([0, 1], [1, 2], [2, 3], [0, 1])):
        rollout = made.rollout(epoch)
        assert rollout.objective_steps.tolist() == steps
        made.update(rollout)
        assert made.learner.start_error is not None
        assert made.learner.start_error < 1e-5


@pytest.mark.slow
def test_killed_and_resumed_equals_never_stopped_with_a_window(listed: Callable[..., Suite], tmp_path: Path) -> None:
    suite = listed("grpo", {"window": {"size": 2}})
    whole = run(suite, tmp_path / "whole", "grpo")
    assert exit_code_of_killed("between the rename and the clean-up", suite, tmp_path / "killed", "grpo") == -9
    assert_same_run(run(suite, tmp_path / "killed", "grpo", resume=True), whole)


@pytest.mark.parametrize(("label", "draws"), [("nft", 10), ("awm", 6), ("crd", 10), ("dpo", 10)])
def test_as_published_the_family_makes_at_most_half_of_ddpos_network_calls(
    suite: Suite, label: str, draws: int
) -> None:
    """On 50 steps with guidance: ten deterministic steps without it, and the published number of noise levels."""
    published = {"kind": "ddim", "num_steps": 10, "eta": 0, "guidance_scale": 1}
    tables = {
        label: {"images_per_prompt": 4, "sampler": published, "config": {"draws": draws}},
        "ddpo": {"images_per_prompt": 4},
    }
    changes = {"algorithms": tables, "sampler": {"num_steps": 50, "guidance_scale": 5.0}}
    listed = Suite.model_validate(suite.model_dump() | changes)
    ours, ddpos = (make_outline(listed, name, seed=0).totals() for name in (label, "ddpo"))
    assert ours.training_forwards + ours.training_backwards <= 0.5 * (
        ddpos.training_forwards + ddpos.training_backwards
    )
    assert ours.evaluation_forwards == ddpos.evaluation_forwards


class OfOde(Algorithm):
    """Needs images of a deterministic chain."""

    rollout_needs = RolloutNeeds(trajectories=False, deterministic=True)
    cost = update = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("label", "sampler", "message"),
    [
        ("prdp", {"kind": "ddim", "eta": 0}, r"prdp trains on trajectories, whose steps need noise, but .*eta is 0"),
        ("ode", {"guidance_scale": 1}, r"but its sampler, ddpm, draws some; use --set algorithms.ode.sampler.kind=ode"),
        ("nft", {"window": {"size": 2}}, r"window is set, but nft trains on no trajectories"),
        ("grpo", {"window": {"size": 5}}, r"window.size is 5, but 4 steps of its chain of 5 carry a gradient"),
        ("ddpo", {"kind": "ode"}, r"ddpo trains on trajectories, .*kind is 'ode'; use --set .*kind=ddpm, or leave it"),
        (
            "ddpo",
            {"kind": "flow_sde"},
            r"kind is 'flow_sde' \(did you mean 'flow-sde' .*; the samplers are ddpm, ddim,",
        ),
        (
            "nft",
            {"kind": "ode", "eta": 0.5},
            r"eta is 0.5, but ode has no such number; leave it out, or use kind = 'ddim'",
        ),
        ("nft", {"kind": "flow-sde", "eta": 0}, r"eta is 0, but the noise of flow-sde is set by noise_level; leave it"),
        ("nft", {"noise_level": 0.7}, r"noise_level is 0.7, but ddpm has no such number; .* use kind = 'flow-sde' or"),
        ("nft", {"kind": "cps", "noise_level": 1.2}, r"sampler.noise_level is 1.2, but that of cps is at most 1"),
        ("nft", {"num_steps": 2000}, r"algorithms.nft.sampler: sampler.num_steps is 2000, but the model has 1000"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_loads(
    listed: Callable[..., Suite],
    label: str,
    sampler: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(registry._registered["algorithms"], "ode", OfOde)
    with pytest.raises(InputError, match=message):
        make_outline(listed(label, sampler), label, seed=0)


def test_settings_that_make_no_chain_are_refused_where_they_stand(listed: Callable[..., Suite]) -> None:
    with pytest.raises(ValueError, match=r"algorithms.nft.sampler, .*: eta is 0.5, but ddpm is ancestral sampling"):
        listed("nft", {"eta": 0.5})
    with pytest.raises(ValueError, match=r"skip_last_steps is 1 and num_steps 1"):
        listed("nft", {"num_steps": 1})


def test_a_world_without_guidance_does_not_train_with_it() -> None:
    from rfbench.suite.loading import load_suite

    suite = load_suite("optimum-gaussian", ["algorithms.nft.sampler.guidance_scale=2"])
    with pytest.raises(InputError, match=r"gaussian does not take algorithms.nft.sampler: .*no unconditional prompt"):
        make_outline(suite, "nft", seed=0)
