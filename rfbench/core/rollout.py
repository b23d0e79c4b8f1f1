"""What one epoch sampled and scored, and the sampler that makes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rfbench.core import keyed_random
from rfbench.core.conditioning import Condition, select
from rfbench.core.meter import Meter
from rfbench.core.policy import Policy
from rfbench.core.processes import Processes
from rfbench.core.reward import Reward, begin
from rfbench.core.schedule import log_density
from rfbench.suite.suite import AlgorithmSettings


@dataclass(frozen=True)
class RolloutNeeds:
    """What an algorithm needs from a rollout; checked against the suite before anything loads.

    Attributes:
        min_images_per_prompt: smallest group that the objective is defined for.
        trajectories: whether it trains on trajectories and their log-probs; without, it gets clean latents only.
        reference_log_probs: whether it needs the reference's log-probs of every trajectory.
        off_policy: whether its objective is defined for trajectories that another policy sampled.
    """

    min_images_per_prompt: int = 1
    trajectories: bool = True
    reference_log_probs: bool = False
    off_policy: bool = False


class Transition(NamedTuple):
    """One denoising step of ``m`` images: ``next_latents`` was drawn from N(mean, sigma^2), mean at ``latents``."""

    steps: Tensor  # (m,) index of the step, the same for all
    latents: Tensor  # (m, ...)
    mean: Tensor  # (m, ...)
    next_latents: Tensor  # (m, ...)


@torch.no_grad()
def denoise(policy: Policy, condition: Condition, noise: Tensor, *, reference: bool = False) -> Iterator[Transition]:
    """Walks the chain from x_T to x_0 with ``noise`` ``(m, steps + 1, ...)``: the initial latent, then each step's."""
    latents = noise[:, 0]
    for step in range(policy.schedule.num_steps):
        steps = torch.full((len(noise),), step, device=noise.device)
        mean = policy.step_mean(latents, steps, condition, reference=reference)
        sigma = policy.schedule.sigma[step].to(mean.dtype)
        next_latents = mean + sigma * noise[:, step + 1]
        yield Transition(steps, latents, mean, next_latents)
        latents = next_latents


@dataclass
class Rollout:
    """One epoch's images, scored.

    Scalars are those of all processes, on the CPU; latents are this process's share, the images ``local``.

    Attributes:
        epoch: the epoch that sampled it, from 0.
        prompts: ``(groups,)`` one prompt per group.
        groups: ``(images,)`` the group, so the prompt, of each image.
        rewards: ``(images,)`` raw training rewards.
        log_probs: ``(images, steps)`` log-probs of the objective's steps under the policy as it was at this moment,
            before the epoch's update. That is the policy that sampled, unless the suite samples from the reference.
        reference_log_probs: the same under the frozen reference, where the algorithm asks for them.
        latents: ``(local images, denoising steps + 1, ...)``, None where the algorithm needs no trajectories.
        clean_latents: ``(local images, ...)``, x_0.
        condition: one row for each group of this process; ``conditions`` has those of given images.
        local: this process's images.
    """

    epoch: int
    prompts: list[str]
    groups: Tensor
    rewards: Tensor
    log_probs: Tensor
    reference_log_probs: Tensor | None
    latents: Tensor | None
    clean_latents: Tensor
    condition: Condition
    local: range

    def conditions(self, images: Tensor) -> Condition:
        """Those of some of this process's images ``(m,)``, on the device: m rows."""
        rows = self.groups[images] - self.groups[self.local.start]
        return select(self.condition, rows.to(next(iter(self.condition.values())).device))

    @property
    def num_images(self) -> int:
        return len(self.groups)

    @property
    def num_steps(self) -> int:
        """Denoising steps that carry a gradient."""
        return self.log_probs.shape[1]

    def group_means(self) -> Tensor:
        """``(images,)`` the mean reward of each image's prompt in this epoch."""
        sums = torch.zeros(len(self.prompts)).to(self.rewards).index_add(0, self.groups, self.rewards)
        return (sums / torch.bincount(self.groups, minlength=len(self.prompts)))[self.groups]


class RolloutSampler:
    """Samples and scores an epoch's images, in chunks of one shape, with noise keyed by (seed, epoch, image)."""

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        reward_name: str,
        processes: Processes,
        meter: Meter,
        *,
        chunk_size: int,
        seed: int,
        reward_noise: float | None = None,
    ) -> None:
        self._policy, self._reward, self._reward_name = policy, reward, reward_name
        self._processes, self._meter = processes, meter
        self._chunk_size, self._seed, self._reward_noise = chunk_size, seed, reward_noise

    @torch.no_grad()
    def __call__(
        self, epoch: int, prompts: Sequence[str], settings: AlgorithmSettings, rollout_needs: RolloutNeeds
    ) -> Rollout:
        """``settings.images_per_prompt`` images of each prompt, from the current policy or from the reference."""
        policy, meter, device = self._policy, self._meter, self._processes.device
        images_per_prompt, offline = settings.images_per_prompt, settings.sample_from == "reference"
        share = self._processes.share(len(prompts))
        local = range(share.start * images_per_prompt, share.stop * images_per_prompt)
        groups = torch.arange(len(prompts)).repeat_interleave(images_per_prompt)
        objective_steps = policy.schedule.objective_steps
        shape = policy.model.latent_shape
        num_steps = policy.schedule.num_steps

        with meter.phase("sample"):
            condition = policy.encode_prompts(prompts[share.start : share.stop])
        rollout = Rollout(
            epoch=epoch,
            prompts=list(prompts),
            groups=groups,
            rewards=torch.zeros(len(groups)),
            log_probs=torch.zeros(len(groups), len(objective_steps)),
            reference_log_probs=(
                torch.zeros(len(groups), len(objective_steps)) if rollout_needs.reference_log_probs else None
            ),
            latents=torch.empty(len(local), num_steps + 1, *shape) if rollout_needs.trajectories else None,
            clean_latents=torch.empty(len(local), *shape),
            condition=condition,
            local=local,
        )
        scored = []  # the images of each chunk, and a function that waits for their scores
        for start in range(local.start, local.stop, self._chunk_size):
            images = torch.arange(start, min(start + self._chunk_size, local.stop))
            chunk_condition = rollout.conditions(images)
            with meter.phase("sample"):
                drawn = self._draw(epoch, images, groups if settings.shared_initial_latents else None).to(device)
                clean = self._sample(rollout, images, chunk_condition, drawn, offline)
            if offline and rollout_needs.trajectories:
                with meter.phase("sample"):
                    self._add_log_probs(rollout.log_probs, rollout, images, chunk_condition, reference=False)
            if not offline and rollout.reference_log_probs is not None:
                with meter.phase("reference"):
                    self._add_log_probs(rollout.reference_log_probs, rollout, images, chunk_condition, reference=True)
            with meter.phase("decode"):
                pixels = policy.decode(clean)
            with meter.phase("reward"):
                chunk_prompts = [prompts[group] for group in groups[images]]
                where = f"epoch {epoch + 1}"
                scores = begin(self._reward, self._reward_name, pixels, chunk_prompts, where, start)
                scored.append((images, scores))
        with meter.phase("reward"):
            for images, scores in scored:
                rollout.rewards[images] = scores()
                if self._reward_noise is not None:
                    keys = [(self._seed, "reward noise", epoch, int(image)) for image in images]
                    rollout.rewards[images] += self._reward_noise * keyed_random.normal(keys, (1,)).flatten()
        meter.counters.images += len(groups)
        meter.counters.reward_queries += len(groups)
        rollout.rewards = self._processes.sum(rollout.rewards)
        rollout.log_probs = self._processes.sum(rollout.log_probs)
        if rollout.reference_log_probs is not None:
            rollout.reference_log_probs = self._processes.sum(rollout.reference_log_probs)
        return rollout

    def _draw(self, epoch: int, images: Tensor, groups: Tensor | None) -> Tensor:
        """The noise ``(m, steps + 1, ...)`` of a chunk of images; the initial latent is its group's, if given."""
        shape, num_steps = self._policy.model.latent_shape, self._policy.schedule.num_steps
        drawn = keyed_random.normal(
            [(self._seed, "rollout", epoch, int(image)) for image in images], (num_steps + 1, *shape)
        )
        if groups is not None:
            keys = [(self._seed, "rollout", epoch, "group", int(group)) for group in groups[images]]
            drawn[:, 0] = keyed_random.normal(keys, shape)
        return drawn

    def _sample(self, rollout: Rollout, images: Tensor, condition: Condition, drawn: Tensor, reference: bool) -> Tensor:
        """Fills the latents of a chunk of images, and the log-probs of who samples; returns x_0 ``(m, ...)``."""
        log_probs = rollout.reference_log_probs if reference else rollout.log_probs
        schedule = self._policy.schedule
        column_of = {int(step): column for column, step in enumerate(schedule.objective_steps)}
        local = images - rollout.local.start
        clean = drawn[:, 0]
        chain = denoise(self._policy, condition, drawn, reference=reference)
        for step, (steps, latents, mean, next_latents) in enumerate(chain):
            if rollout.latents is not None:
                rollout.latents[local, step] = latents.cpu()
                if log_probs is not None and step in column_of:
                    values = log_density(next_latents, mean, schedule.sigma[steps])
                    log_probs[images, column_of[step]] = values.cpu()
            clean = next_latents
        if rollout.latents is not None:
            rollout.latents[local, -1] = clean.cpu()
        rollout.clean_latents[local] = clean.cpu()
        return clean

    def _add_log_probs(
        self, log_probs: Tensor, rollout: Rollout, images: Tensor, condition: Condition, *, reference: bool
    ) -> None:
        """Fills ``log_probs`` for a sampled chunk of images, in the chunk's own shape: one step at a time."""
        assert rollout.latents is not None
        device = self._processes.device
        local = images - rollout.local.start
        for column, step in enumerate(self._policy.schedule.objective_steps):
            values = self._policy.log_probs(
                rollout.latents[local, step].to(device),
                rollout.latents[local, step + 1].to(device),
                step.repeat(len(images)),
                condition,
                reference=reference,
            )
            log_probs[images, column] = values.cpu()
