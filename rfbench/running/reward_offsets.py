"""A constant of each prompt on its training rewards, which no comparison within a prompt can see.

It is drawn, and so adds differences between prompts, or it is minus the prompt's mean reward under the base model, and
so removes them: an oracle's baseline, which no algorithm could have. Evaluations never see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rfbench.core import keyed_random
from rfbench.core.policy import REFERENCE, Policy
from rfbench.core.processes import Runtime
from rfbench.core.reward import Reward, score
from rfbench.core.rollout import denoise
from rfbench.suite.suite import RewardOffsets


class PromptOffsets:
    """Gives a prompt's constant when the prompt first comes up, and remembers what was estimated.

    The base model's images have noise keyed by (seed, prompt, image), so an estimate depends neither on the algorithm
    nor on the epoch. They cost no budget: the meter counts them as ``base_reward_queries``, and their time as
    evaluation.
    """

    def __init__(
        self,
        settings: RewardOffsets,
        policy: Policy,
        reward: Reward,
        reward_name: str,
        runtime: Runtime,
    ) -> None:
        self._settings, self._policy, self._reward, self._reward_name = settings, policy, reward, reward_name
        self._processes, self._meter = runtime.processes, runtime.meter
        self._chunk_size, self._seed = runtime.chunk_size, runtime.seed
        self._base_means: dict[str, float] = {}

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """``(prompts,)`` what is added to the rewards of each, in reward units."""
        offsets = torch.zeros(len(prompts))
        if self._settings.added_std is not None:
            drawn = keyed_random.normal([(self._seed, "reward offset", prompt) for prompt in prompts], (1,))
            offsets += self._settings.added_std * drawn.flatten()
        if self._settings.base_images is not None:
            if new := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._base_means]:
                self._base_means |= self._estimate(new, self._settings.base_images)
            offsets -= torch.tensor([self._base_means[prompt] for prompt in prompts])
        return offsets

    def state_dict(self) -> dict[str, Any]:
        return {"base_means": dict(self._base_means)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._base_means = dict(state["base_means"])

    @torch.no_grad()
    def _estimate(self, prompts: list[str], copies: int) -> dict[str, float]:
        """The mean reward of ``copies`` images of the reference for each of ``prompts``."""
        rewards = torch.zeros(len(prompts) * copies)
        share = self._processes.share(len(prompts))
        with self._meter.evaluation():
            for first in range(share.start * copies, share.stop * copies, self._chunk_size):
                images = range(first, min(first + self._chunk_size, share.stop * copies))
                of_images = [prompts[image // copies] for image in images]
                keys = [
                    (self._seed, "base reward", prompt, image % copies)
                    for prompt, image in zip(of_images, images, strict=True)
                ]
                pixels = self._policy.decode(self._sample(of_images, keys))
                where = "the base model's images of the epoch's prompts"
                rewards[images.start : images.stop] = score(
                    self._reward, self._reward_name, pixels, of_images, where, first
                )
        self._meter.counters.base_reward_queries += len(rewards)
        means = self._processes.sum(rewards).view(len(prompts), copies).mean(1)
        return dict(zip(prompts, means.tolist(), strict=True))

    def _sample(self, prompts: list[str], keys: Sequence[keyed_random.Key]) -> Tensor:
        """x_0 ``(m, ...)`` under the reference."""
        shape, num_steps = self._policy.model.latent_shape, self._policy.schedule.num_steps
        noise = keyed_random.normal(keys, (num_steps + 1, *shape)).to(self._processes.device)
        clean = noise[:, 0]
        for transition in denoise(self._policy, self._policy.encode_prompts(prompts), noise, weights=REFERENCE):
            clean = transition.next_latents
        return clean
