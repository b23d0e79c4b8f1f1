"""RWR's weights and loss against independent transcriptions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfbench.errors import InputError, InterfaceError
from rfbench.running.assembly import Run
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Suite
from rfbench_algorithms.best_of_n import BestOfN, BestOfNConfig
from rfbench_algorithms.rwr import RWR, RWRConfig, num_best, softmax_weights, sparse_weights
from rfbench_algorithms.weighted_fit import Images
from tests import tiny
from tests.runs import assert_same_run

rewards_with_ties = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=12)


def softmax_by_hand(rewards: list[float], inverse_temperature: float, standardise: bool) -> list[float]:
    if standardise:
        mean = sum(rewards) / len(rewards)
        std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
        rewards = [(r - mean) / (std + 1e-6) for r in rewards]
    exponentials = [math.exp(inverse_temperature * r) for r in rewards]
    return [len(rewards) * e / sum(exponentials) for e in exponentials]


@given(rewards=rewards_with_ties, inverse_temperature=st.sampled_from([0.2, 1.0, 7.0]), standardise=st.booleans())
def test_softmax_weights(rewards: list[float], inverse_temperature: float, standardise: bool) -> None:
    found = softmax_weights(torch.tensor(rewards, dtype=torch.float64), inverse_temperature, standardise)
    assert found.tolist() == pytest.approx(softmax_by_hand(rewards, inverse_temperature, standardise), rel=1e-9)
    assert float(found.mean()) == pytest.approx(1)


@given(count=st.integers(1, 40), percentile=st.sampled_from([0.0, 50.0, 75.0, 90.0, 99.0]), seed=st.integers(0, 99))
def test_sparse_weights_keep_the_rewards_from_the_percentile_up(count: int, percentile: float, seed: int) -> None:
    rewards = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).double()  # distinct
    weights = sparse_weights(rewards, percentile)
    kept = rewards >= torch.quantile(rewards, percentile / 100) - 1e-9
    assert torch.equal(weights > 0, kept)
    assert int(kept.sum()) == num_best(count, percentile)
    assert weights[kept].tolist() == pytest.approx([count / int(kept.sum())] * int(kept.sum()))


@given(rewards=rewards_with_ties, percentile=st.sampled_from([50.0, 90.0]))
def test_sparse_weights_with_ties_keep_as_many(rewards: list[float], percentile: float) -> None:
    tensor = torch.tensor(rewards, dtype=torch.float64)
    weights = sparse_weights(tensor, percentile)
    assert int((weights > 0).sum()) == num_best(len(rewards), percentile)
    assert tensor[weights > 0].min() >= (tensor[weights == 0].max() if (weights == 0).any() else -math.inf)


def make(suite: Suite, images_per_prompt: int = 2, **config: Any) -> Run:
    settings = {"rwr": {"images_per_prompt": images_per_prompt, "config": config}}
    return tiny.make_run(tiny.plan(Suite.model_validate(suite.model_dump() | {"algorithms": settings}), "rwr"))


@pytest.mark.parametrize("images_per_prompt", [2, 4])
def test_weights_compete_in_the_round_or_in_the_prompt(images_per_prompt: int) -> None:
    rewards = torch.randn(12, generator=torch.Generator().manual_seed(5)).tolist()
    groups = torch.arange(12) // images_per_prompt
    images = Images([""] * 12, torch.tensor(rewards), groups, torch.zeros(12, 1))
    in_round = RWR(RWRConfig(over="round")).weights(images).tolist()
    assert in_round == pytest.approx(softmax_by_hand(rewards, 1.0, True), rel=1e-5)
    in_prompt = RWR(RWRConfig(over="prompt", inverse_temperature=2.0)).weights(images).tolist()
    contests = [rewards[i : i + images_per_prompt] for i in range(0, 12, images_per_prompt)]
    assert in_prompt == pytest.approx([w for c in contests for w in softmax_by_hand(c, 2.0, True)], rel=1e-5)
    sparse = RWR(RWRConfig(weights="sparse")).weights(images)
    best = [c.index(max(c)) + i * images_per_prompt for i, c in enumerate(contests)]
    assert torch.nonzero(sparse).flatten().tolist() == best  # of every prompt, however hard
    assert RWR(RWRConfig(weights="uniform")).weights(images).tolist() == [1.0] * 12


@pytest.mark.parametrize("guided", [False, True])
def test_the_gradient_is_that_of_the_weighted_denoising_loss(suite: Suite, guided: bool) -> None:
    run = make(suite, passes=1, over="round", guided=guided)
    gradients = tiny.record_gradients(run)
    before = {name: value.clone() for name, value in run.policy.state_dict().items()}
    rollout = run.rollout(0)
    assert rollout.latents is None
    metrics = run.update(rollout)
    run.policy.load_state_dict(before)
    weights = softmax_by_hand(rollout.rewards.tolist(), 1.0, True)
    alpha_bar = run.policy.model.process.alphas_cumprod
    total = torch.zeros(())
    for image in range(12):
        generator = run.learner.generator("rwr", 0, 0, image)
        t = torch.randint(1000, (), generator=generator)
        noise = torch.randn(4, 8, 8, generator=generator)
        noisy = alpha_bar[t].sqrt() * rollout.clean_latents[image] + (1 - alpha_bar[t]).sqrt() * noise
        condition = run.policy.encode_prompts([rollout.prompts[int(rollout.groups[image])]])
        predicted = run.policy.predict(noisy[None].float(), t[None], condition, guided=guided)
        total = total + weights[image] * (noise - predicted[0]).square().mean() / 12
    assert metrics["loss"] == pytest.approx(float(total.detach()), rel=1e-4)
    expected = torch.autograd.grad(total, list(run.policy.trainable().values()))
    size = max(float(value.abs().max()) for value in expected)
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5 * size)


def test_the_steps_of_a_pass_add_up_to_the_gradient_of_the_whole_loss(suite: Suite) -> None:
    """At one policy, batches of 5, 5 and 2 images: their gradients, weighted by their sizes, average to the pass's."""
    config = {"passes": 1, "over": "round"}
    gradients = []
    for batch_size in (12, 5):
        run = make(suite, batch_size=batch_size, **config)
        found = tiny.record_gradients(run)
        run.learner._optimizer.param_groups[0]["lr"] = 0.0
        run.update(run.rollout(0))
        parameters = len(run.policy.trainable())
        steps = [torch.cat([g.flatten() for g in found[i : i + parameters]]) for i in range(0, len(found), parameters)]
        sizes = [12] if batch_size == 12 else [5, 5, 2]
        gradients.append(sum(size / 12 * step for size, step in zip(sizes, steps, strict=True)))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5 * float(gradients[0].abs().max()))


def test_a_round_collects_its_epochs_images_and_begins_with_a_fresh_optimiser(suite: Suite) -> None:
    """The policy stands still until the round's last epoch; then all of its images are used, and none again."""
    run = make(suite, epochs_per_round=2, passes=1, over="round", batch_size=24)
    start = {name: value.clone() for name, value in run.policy.state_dict().items()}
    assert run.update(run.rollout(0)) == {"round_images": 12}
    assert all(torch.equal(value, start[name]) for name, value in run.policy.state_dict().items())
    for epoch in (1, 2, 3):
        metrics = run.update(run.rollout(epoch))
        assert metrics["round_images"] == (24 if epoch % 2 else 12)
    steps = {float(state["step"]) for state in run.learner._optimizer.state.values()}
    assert steps == {1.0}  # the second round's only step, by an optimiser that saw no other
    kept = make(suite, epochs_per_round=2, passes=1, over="round", batch_size=24, fresh_optimizer=False)
    for epoch in range(4):
        kept.update(kept.rollout(epoch))
    assert {float(state["step"]) for state in kept.learner._optimizer.state.values()} == {2.0}


def test_the_images_of_a_round_survive_a_checkpoint(suite: Suite, tmp_path: Any) -> None:
    """An update from restored state moves the policy exactly as one that went on."""
    runs = [make(suite, epochs_per_round=2, passes=1) for _ in range(2)]
    for run in runs:
        run.update(run.rollout(0))
    torch.save(runs[0].algorithm.state_dict(), tmp_path / "state.pt")
    runs[1].algorithm = RWR(runs[1].plan.algorithm.config)
    runs[1].algorithm.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    ends = []
    for run in runs:
        run.update(run.rollout(1))
        ends.append(run.policy.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_an_algorithm_that_forgets_its_update_is_told_of_both_calls(suite: Suite) -> None:
    run = make(suite)
    run.learner.begin(run.rollout(0))
    with pytest.raises(
        InterfaceError, match=r"learner\.step\(\) was never called, and neither was learner\.skip_update"
    ):
        run.learner.end()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"guided": True},
        {"weights": "uniform", "batch_size": 5},
        {"weights": "sparse", "over": "round"},
        {"weights": "sparse", "percentile": 50},
        {"weights": "sparse", "epochs_per_round": 2},
    ],
)
def test_counters_equal_the_plan(suite: Suite, config: dict[str, Any]) -> None:
    run = make(suite, passes=3, **config)
    epochs = config.get("epochs_per_round", 1)
    for epoch in range(epochs):
        rollout = run.rollout(epoch)
        rollout.rewards = rollout.rewards.round(decimals=2)  # with ties
        run.update(rollout)
    cost, counters = run.plan.epoch_cost(), run.meter.counters
    assert counters.denoiser_forwards == epochs * cost.forwards
    assert counters.denoiser_backwards == epochs * cost.backwards
    assert counters.optimizer_steps == 3 * (3 if "batch_size" in config else 1)


def test_the_best_of_each_prompt_count_alike_and_the_others_not() -> None:
    rewards, groups = torch.tensor([3.0, 1.0, 2.0, 0.5, 7.0, 6.0, 7.0, -1.0]), torch.arange(2).repeat_interleave(4)
    images = Images([""] * 8, rewards, groups, torch.zeros(8, 1))
    assert BestOfN(BestOfNConfig()).weights(images).tolist() == [4, 0, 0, 0, 4, 0, 0, 0]
    assert BestOfN(BestOfNConfig(keep=2)).weights(images).tolist() == [2, 0, 2, 0, 2, 0, 2, 0]


def test_best_of_n_is_rwr_with_hard_weights_bit_for_bit(suite: Suite, tmp_path: Path) -> None:
    """Of 4 images the sparse weights from the 80th percentile up leave one."""
    table = {"images_per_prompt": 4, "optimizer": {"learning_rate": 1e-3}}
    sparse = {"weights": "sparse", "percentile": 80, "passes": 2}
    tables = {"best-of-n": table | {"config": {"passes": 2}}, "rwr": table | {"config": sparse}}
    listed = Suite.model_validate(suite.model_dump() | {"algorithms": tables})
    assert_same_run(*(train(tiny.plan(listed, label), tmp_path, Quiet()) for label in tables))


def test_best_of_n_spends_what_the_dry_run_says(suite: Suite) -> None:
    tables = {"best-of-n": {"images_per_prompt": 6, "config": {"keep": 2, "passes": 3}}}
    made = tiny.make_run(tiny.plan(Suite.model_validate(suite.model_dump() | {"algorithms": tables}), "best-of-n"))
    before = made.counters()
    made.update(made.rollout(0))
    told = made.plan.epoch_cost()
    assert made.counters().denoiser_forwards - before.denoiser_forwards == told.forwards
    assert made.counters().denoiser_backwards == told.backwards == 12 / 6 * 2 * 3


def test_best_of_n_needs_more_images_than_it_keeps(suite: Suite) -> None:
    tables = {"best-of-n": {"images_per_prompt": 4, "config": {"keep": 4}}}
    listed = Suite.model_validate(suite.model_dump() | {"algorithms": tables})
    with pytest.raises(InputError, match=r"config.keep is 4, but images_per_prompt 4: every weight would be 1"):
        tiny.plan(listed, "best-of-n")
