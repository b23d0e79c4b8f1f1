"""A reward in worker threads: the same scores, while sampling goes on; time limits and retries."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rfbench import plugins
from rfbench.core.finite import Batch
from rfbench.core.reward import Reward
from rfbench.errors import InputError, InterfaceError, RfbenchError
from rfbench.plugins.component import find_component
from rfbench.rewards.workers import Workers, WorkersConfig
from rfbench.suite.settings import Settings
from rfbench.suite.suite import PluginRef
from tests import tiny

IMAGES = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 4, 4)
PROMPTS = [f"prompt {i}" for i in range(10)]
PATIENCE = 30.0  # seconds after which a test that would hang fails


class Named(Reward):
    """Scores the number of the image plus that of the prompt, by way of ``behaviour``."""

    unit, version = "number", "1"
    behaviour: Callable[[Tensor], Tensor]

    def __init__(self, config: Settings, device: torch.device) -> None:
        pass

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        numbers = torch.tensor([int(prompt.split()[-1]) for prompt in prompts])
        return type(self).behaviour(images[:, 0, 0, 0].float() + numbers)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Workers]:
    """Makes workers around a reward of some behaviour."""

    def make(behaviour: Callable[[Tensor], Tensor], **settings: Any) -> Workers:
        reward = type("Reward", (Named,), {"behaviour": staticmethod(behaviour)})
        plugins.register("rewards", "named", reward)
        return Workers(WorkersConfig(reward={"name": "named"}, **settings), torch.device("cpu"))

    return make


@pytest.mark.parametrize("batch_size", [1, 3, 10, 99])
def test_scores_keep_their_order(workers: Callable[..., Workers], batch_size: int) -> None:
    reward = workers(lambda scores: scores, batch_size=batch_size, num_workers=3)
    assert reward(IMAGES, PROMPTS).tolist() == [2.0 * i for i in range(10)]
    assert (reward.unit, reward.version, reward.uses_prompts) == ("number", "1", True)


def test_batches_are_scored_at_the_same_time_and_no_more_than_asked(workers: Callable[..., Workers]) -> None:
    """Two calls meet at a barrier, which one at a time never could; a third would break it."""
    barrier, lock, inside, most = threading.Barrier(2, timeout=PATIENCE), threading.Lock(), [0], [0]

    def meet(scores: Tensor) -> Tensor:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        barrier.wait()
        with lock:
            inside[0] -= 1
        return scores

    workers(meet, batch_size=1, num_workers=2, retries=0)(IMAGES, PROMPTS)
    assert most == [2]


def test_a_call_that_fails_is_tried_again(workers: Callable[..., Workers]) -> None:
    calls = itertools.count()

    def flaky(scores: Tensor) -> Tensor:
        if next(calls) < 2:
            raise ConnectionError("reset by peer")
        return scores

    reward = workers(flaky, num_workers=1, retries=2)
    assert reward(IMAGES, PROMPTS).tolist() == [2.0 * i for i in range(10)]
    assert next(calls) == 3


def test_a_call_that_hangs_is_left_and_tried_again(workers: Callable[..., Workers]) -> None:
    calls, never = itertools.count(), threading.Event()

    def hang_once(scores: Tensor) -> Tensor:
        if next(calls) == 0:
            never.wait(PATIENCE)
        return scores

    reward = workers(hang_once, num_workers=1, timeout_seconds=0.2, retries=1)
    assert reward(IMAGES, PROMPTS).tolist() == [2.0 * i for i in range(10)]
    never.set()


@pytest.mark.parametrize(
    ("failure", "said"),
    [(ConnectionError("reset by peer"), "ConnectionError: reset by peer"), (None, "no answer within 0.05 s")],
)
def test_the_error_says_which_images_and_how_often(
    workers: Callable[..., Workers], failure: Exception | None, said: str
) -> None:
    never = threading.Event()

    def fail(scores: Tensor) -> Tensor:
        if scores[0] == 8:  # images 4 to 7
            if failure:
                raise failure
            never.wait(PATIENCE)
        return scores

    reward = workers(fail, batch_size=4, timeout_seconds=0.05 if failure is None else PATIENCE, retries=2)
    with pytest.raises(RfbenchError) as raised:
        reward(IMAGES, PROMPTS)
    never.set()
    message = f"the reward 'named' failed on images 4 to 7 of 10 after 3 attempts; the last: {said}"
    assert str(raised.value) == message


@pytest.mark.parametrize("retries", [0, 5])
def test_a_wrong_shape_is_not_tried_again(workers: Callable[..., Workers], retries: int) -> None:
    calls = itertools.count()
    reward = workers(lambda scores: (next(calls), scores[:, None] + scores)[1], retries=retries)
    with pytest.raises(InterfaceError, match=r"shape \(10, 10\) for 10 images .* every image against every prompt"):
        reward(IMAGES, PROMPTS)
    assert next(calls) == 1


def test_no_gradient_is_kept_in_the_threads(workers: Callable[..., Workers]) -> None:
    weight = torch.ones((), requires_grad=True)
    assert not workers(lambda scores: scores * weight)(IMAGES, PROMPTS).requires_grad


def test_settings_of_the_inner_reward_are_checked_before_anything_loads() -> None:
    with pytest.raises(InputError, match="unknown key qualty"):
        WorkersConfig(reward={"name": "jpeg-compressibility", "qualty": 9})


def test_sources_are_those_of_the_inner_reward() -> None:
    (source,) = find_component(
        "rewards", PluginRef(name="workers", reward={"name": "hpsv2", "path": "mine.pt"})
    ).sources()
    assert (source.setting, source.path) == ("reward.path", "mine.pt")


def rollout_rewards(pipeline: Path, prompt_file: Path, reward: dict[str, Any], **changes: Any) -> Tensor:
    suite = tiny.make_suite(pipeline, prompt_file, reward=reward, **changes)
    return tiny.make_run(tiny.plan(suite)).rollout(0).rewards


def test_a_rollout_has_the_same_rewards(pipeline: Path, prompt_file: Path) -> None:
    inner = {"name": "jpeg-incompressibility"}
    around = {"name": "workers", "reward": inner, "batch_size": 3, "num_workers": 2}
    expected = rollout_rewards(pipeline, prompt_file, inner)
    assert expected.std() > 0
    assert torch.equal(rollout_rewards(pipeline, prompt_file, around), expected)


def test_sampling_goes_on_while_rewards_are_awaited(
    pipeline: Path, prompt_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No image is scored before all are sampled; a sampler that waited for a chunk's scores would wait for ever."""
    all_sampled = threading.Event()

    class Patient(Named):
        def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            if not all_sampled.wait(PATIENCE):
                raise InterfaceError("sampling has stopped")
            return images.float().mean((1, 2, 3))

    plugins.register("rewards", "patient", Patient)
    suite = tiny.make_suite(
        pipeline,
        prompt_file,
        reward={"name": "workers", "reward": {"name": "patient"}},
        compute={"chunk_size": 4, "device": "cpu"},
    )
    run = tiny.make_run(tiny.plan(suite))
    decode, decoded = run.policy.decode, [0]

    def count(latents: Tensor, batch: Batch) -> Tensor:
        decoded[0] += len(latents)
        if decoded[0] == suite.budget.reward_queries_per_epoch:
            all_sampled.set()
        return decode(latents, batch)

    monkeypatch.setattr(run.policy, "decode", count)
    assert run.rollout(0).rewards.min() > 0
