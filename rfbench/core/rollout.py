"""What one epoch sampled and scored, and the sampler that makes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from rfbench.core import keyed_random
from rfbench.core.conditioning import Condition, select
from rfbench.core.finite import Batch
from rfbench.core.policy import POLICY, REFERENCE, Policy
from rfbench.core.processes import Runtime
from rfbench.core.reward import Reward, begin
from rfbench.core.schedule import Schedule, log_density, window_start
from rfbench.suite.suite import AlgorithmSettings

READ = 1 << 20  # numbers of a tensor that is checked by its content, too: rewards and log-probs, but no latents


@dataclass(frozen=True)
class RolloutNeeds:
    """What an algorithm needs from a rollout; checked against the suite before anything loads.

    Attributes:
        min_images_per_prompt: smallest group that the objective is defined for.
        trajectories: whether it trains on trajectories and their log-probs; without, it gets clean latents only.
        reference_log_probs: whether it needs the reference's log-probs of every trajectory.
        reward_heads: whether it needs a reward's terms one by one.
        deterministic: whether its images must come from a chain without noise.
        off_policy: whether its objective is defined for trajectories that another policy sampled.
    """

    min_images_per_prompt: int = 1
    trajectories: bool = True
    reference_log_probs: bool = False
    off_policy: bool = False
    deterministic: bool = False
    reward_heads: bool = False


class Transition(NamedTuple):
    """One denoising step of ``m`` images: ``next_latents`` was drawn from N(mean, sigma^2), mean at ``latents``."""

    steps: Tensor  # (m,) index of the step, the same for all
    latents: Tensor  # (m, ...)
    mean: Tensor  # (m, ...)
    next_latents: Tensor  # (m, ...)


@torch.no_grad()
def denoise(
    policy: Policy,
    condition: Condition,
    noise: Tensor,
    batch: Batch | None = None,
    *,
    weights: str = POLICY,
    schedule: Schedule | None = None,
) -> Iterator[Transition]:
    """Walks the chain from x_T to x_0 with ``noise`` ``(m, steps + 1, ...)``: the initial latent, then each step's.

    Latents that are not finite end it: of a picture that has no value, no reward may follow.

    Args:
        schedule: the policy's own by default, or that with noise in a window of it.
    """
    batch, schedule = batch or Batch("sampling", [""] * len(noise)), schedule or policy.schedule
    latents = schedule.initial_std * noise[:, 0]
    for step in range(schedule.num_steps):
        steps = torch.full((len(noise),), step, device=noise.device)
        output = policy.predict(latents, schedule.timesteps[steps], condition, weights=weights)
        mean = schedule.mean(latents, output, steps)
        sigma = schedule.sigma[step].to(mean.dtype)
        next_latents = mean + sigma * noise[:, step + 1]
        batch.require_finite(next_latents, f"the latents of step {step + 1} of {schedule.num_steps} are")
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
        rewards: ``(images,)`` raw training rewards; with the suite's noise and offsets, where it has them.
        objective_steps: ``(steps,)`` the denoising steps of those columns; a window's move from epoch to epoch.
        reward_heads: ``(images,)`` each head's raw scores by name, in its own unit; empty where the reward has none.
        offsets: ``(groups,)`` what the suite's ``reward_offsets`` added to the rewards of each prompt.
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
    objective_steps: Tensor
    offsets: Tensor | None = None
    reward_heads: dict[str, Tensor] = field(default_factory=dict)

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

    def versions(self) -> dict[str, tuple[int, int, str]]:
        """Each tensor's identity, how often it was written to, and its checksum: different where something has changed.

        What is written through an array of numpy's counts as no writing; large tensors, such as latents, are not read.
        """
        tensors = {name: x for name, x in vars(self).items() if isinstance(x, Tensor)}
        tensors |= {f"reward_heads[{head!r}]": x for head, x in self.reward_heads.items()}
        return {name: (id(x), x._version, _checksum(x) if x.numel() <= READ else "") for name, x in tensors.items()}

    def group_means(self) -> Tensor:
        """``(images,)`` the mean reward of each image's prompt in this epoch."""
        return group_means(self.rewards, self.groups)

    def prompt_ids(self) -> Tensor:
        """``(images,)`` a number for each image's prompt: its first group, where a prompt fills several groups."""
        first = {prompt: group for group, prompt in reversed(list(enumerate(self.prompts)))}
        return torch.tensor([first[prompt] for prompt in self.prompts])[self.groups]


def _checksum(values: Tensor) -> str:
    numbers = values.detach().cpu().reshape(-1).view(torch.uint8)
    return hashlib.sha256(numbers.numpy().tobytes()).hexdigest()


def group_means(values: Tensor, groups: Tensor) -> Tensor:
    """``(images,)`` the mean of ``values`` ``(images,)`` over the images with the same number in ``groups``."""
    sums = torch.zeros(int(groups.max()) + 1).to(values).index_add(0, groups, values)
    return (sums / torch.bincount(groups))[groups]


class Spread(NamedTuple):
    """Standard deviations of what is measured on images, as those of prompts and images drawn without end.

    Attributes:
        within: of a prompt's images; None where no prompt has two.
        between: of the prompts' own means, without what ``within`` adds to a mean of few images; None where that cannot
            be told apart from it, or where there is one prompt.
    """

    within: float | None
    between: float | None

    @property
    def ratio(self) -> float | None:
        """``between`` over ``within``; None where either is unknown, or nothing varies within a prompt."""
        return self.between / self.within if self.within and self.between is not None else None


def spread(values: Tensor, groups: Tensor) -> Spread:
    """The spread of ``values`` ``(images,)`` within and between ``groups``, by the analysis of variance.

    With n images a prompt, the variance of the prompts' sample means is between^2 + within^2 / n. An estimate of
    between^2 that comes out negative counts as 0.
    """
    values = values.double()
    sizes = torch.bincount(groups)
    sizes = sizes[sizes > 0].double()
    images, prompts = len(values), len(sizes)
    if images == prompts:
        return Spread(None, None)
    means = group_means(values, groups)
    within = float((values - means).square().sum() / (images - prompts))
    if prompts == 1:
        return Spread(within**0.5, None)
    of_means = float((means - values.mean()).square().sum() / (prompts - 1))
    typical_size = float(images - sizes.square().sum() / images) / (prompts - 1)
    return Spread(within**0.5, max(0.0, (of_means - within) / typical_size) ** 0.5)


class RolloutSampler:
    """Samples and scores an epoch's images, in chunks of one shape, with noise keyed by (seed, epoch, image).

    Args:
        reward_noise: standard deviation of Gaussian noise on the rewards; None for none.
        offsets: gives what is added to the rewards of each prompt, ``(prompts,)``; None adds nothing.
    """

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        reward_name: str,
        runtime: Runtime,
        *,
        reward_noise: float | None = None,
        offsets: Callable[[Sequence[str]], Tensor] | None = None,
    ) -> None:
        self._policy, self._reward, self._reward_name = policy, reward, reward_name
        self._processes, self._meter = runtime.processes, runtime.meter
        self._chunk_size, self._seed = runtime.chunk_size, runtime.seed
        self._reward_noise, self._offsets = reward_noise, offsets

    @torch.no_grad()
    def __call__(
        self, epoch: int, prompts: Sequence[str], settings: AlgorithmSettings, rollout_needs: RolloutNeeds
    ) -> Rollout:
        """``settings.images_per_prompt`` images of each prompt, sampled with the weights that ``settings`` name."""
        policy, meter, device = self._policy, self._meter, self._processes.device
        images_per_prompt, source = settings.images_per_prompt, settings.sample_from
        schedule = self._schedule(epoch, settings)
        share = self._processes.share(len(prompts))
        local = range(share.start * images_per_prompt, share.stop * images_per_prompt)
        groups = torch.arange(len(prompts)).repeat_interleave(images_per_prompt)
        objective_steps = schedule.objective_steps.cpu()
        shape = policy.model.latent_shape
        num_steps = schedule.num_steps

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
            objective_steps=objective_steps,
        )
        scored = []  # the images of each chunk, and a function that waits for their scores
        for start in range(local.start, local.stop, self._chunk_size):
            images = torch.arange(start, min(start + self._chunk_size, local.stop))
            chunk_condition = rollout.conditions(images)
            chunk_prompts = [prompts[group] for group in groups[images]]
            batch = Batch(f"epoch {epoch + 1}", chunk_prompts, start)
            with meter.phase("sample"):
                drawn = self._draw(epoch, images, groups if settings.shared_initial_latents else None).to(device)
                clean = self._sample(rollout, images, chunk_condition, drawn, batch, source, schedule)
            if source != POLICY and rollout_needs.trajectories:
                with meter.phase("sample"):
                    self._add_log_probs(rollout.log_probs, rollout, images, chunk_condition, batch, POLICY)
            if source != REFERENCE and rollout.reference_log_probs is not None:
                with meter.phase("reference"):
                    log_probs = rollout.reference_log_probs
                    self._add_log_probs(log_probs, rollout, images, chunk_condition, batch, REFERENCE)
            with meter.phase("decode"):
                pixels = policy.decode(clean, batch)
            with meter.phase("reward"):
                scores = begin(self._reward, self._reward_name, pixels, chunk_prompts, batch.where, start)
                scored.append((images, scores))
        with meter.phase("reward"):
            for images, scores in scored:
                rollout.rewards[images], by_head = scores()
                for head, values in by_head.items():
                    rollout.reward_heads.setdefault(head, torch.zeros(len(groups)))[images] = values
                if self._reward_noise is not None:
                    keys = [(self._seed, "reward noise", epoch, int(image)) for image in images]
                    rollout.rewards[images] += self._reward_noise * keyed_random.normal(keys, (1,)).flatten()
        meter.counters.images += len(groups)
        meter.counters.reward_queries += len(groups)
        rollout.rewards = self._processes.sum(rollout.rewards)
        rollout.reward_heads = {head: self._processes.sum(values) for head, values in rollout.reward_heads.items()}
        if self._offsets is not None:
            rollout.offsets = self._offsets(prompts)
            rollout.rewards += rollout.offsets[groups]
        rollout.log_probs = self._processes.sum(rollout.log_probs)
        if rollout.reference_log_probs is not None:
            rollout.reference_log_probs = self._processes.sum(rollout.reference_log_probs)
        return rollout

    def _schedule(self, epoch: int, settings: AlgorithmSettings) -> Schedule:
        """The chain of ``epoch``."""
        schedule, window = self._policy.schedule, settings.sampler.window if settings.sampler else None
        if window is None:
            return schedule
        generator = keyed_random.generator(self._seed, "window", epoch)
        return schedule.windowed(window_start(window, schedule, epoch, generator), window.size)

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

    def _sample(
        self,
        rollout: Rollout,
        images: Tensor,
        condition: Condition,
        drawn: Tensor,
        batch: Batch,
        source: str,
        schedule: Schedule,
    ) -> Tensor:
        """Fills the latents of a chunk of images, and the log-probs of who samples; returns x_0 ``(m, ...)``."""
        log_probs = {POLICY: rollout.log_probs, REFERENCE: rollout.reference_log_probs}.get(source)
        column_of = {int(step): column for column, step in enumerate(rollout.objective_steps)}
        local = images - rollout.local.start
        clean = drawn[:, 0]
        chain = denoise(self._policy, condition, drawn, batch, weights=source, schedule=schedule)
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
        self,
        log_probs: Tensor,
        rollout: Rollout,
        images: Tensor,
        condition: Condition,
        batch: Batch,
        weights: str,
    ) -> None:
        """Fills ``log_probs`` for a sampled chunk of images, in the chunk's own shape: one step at a time."""
        assert rollout.latents is not None
        device = self._processes.device
        local = images - rollout.local.start
        for column, step in enumerate(rollout.objective_steps.to(device)):
            values = self._policy.log_probs(
                rollout.latents[local, step].to(device),
                rollout.latents[local, step + 1].to(device),
                step.repeat(len(images)),
                condition,
                weights=weights,
            )
            batch.require_finite(values, f"the {weights}'s log-probs of step {step + 1} are")
            log_probs[images, column] = values.cpu()
