"""What an algorithm's ``update`` works with: chunks, log-probs, gradients, optimiser steps, keyed randomness."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rfbench.core import keyed_random
from rfbench.core.conditioning import Condition
from rfbench.core.policy import POLICY, REFERENCE, Policy
from rfbench.core.processes import Runtime
from rfbench.core.rollout import Rollout
from rfbench.core.schedule import log_density
from rfbench.errors import InterfaceError, NonFiniteError
from rfbench.suite.suite import Optimizer


@dataclass
class Pairs:
    """A batch of ``m`` (image, step) pairs, steps and images mixed, for one network call; on the device.

    Attributes:
        steps: ``(m,)`` the denoising steps.
        latents, next_latents: ``(m, ...)`` x_t and the sampled x_{t-1}.
        log_probs_old: ``(m,)`` log-probs when sampled.
        condition: m rows.
    """

    steps: Tensor
    latents: Tensor
    next_latents: Tensor
    log_probs_old: Tensor
    condition: Condition


@dataclass
class Chunk(Pairs):
    """Pairs of a rollout.

    Attributes:
        images: ``(m,)`` rows of the rollout's tensors.
        columns: ``(m,)`` columns of the rollout's log-probs.
    """

    images: Tensor
    columns: Tensor

    @property
    def index(self) -> tuple[Tensor, Tensor]:
        """Where the pairs stand in an ``(images, steps)`` tensor."""
        return self.images, self.columns


@dataclass
class CleanChunk:
    """A batch of ``m`` of a rollout's images: rows ``images`` ``(m,)``, x_0 ``latents`` ``(m, ...)``, m conditions."""

    images: Tensor
    latents: Tensor
    condition: Condition


class Prediction(NamedTuple):
    """What the policy says of ``m`` pairs, with gradient where gradients are on, and beside it the reference."""

    output: Tensor  # (m, ...) the network's, guided
    mean: Tensor  # (m, ...) of the step
    log_probs: Tensor  # (m,)
    reference_output: Tensor | None = None  # without gradient
    reference_mean: Tensor | None = None


class Learner:
    """The policy, its optimiser and the processes, as an algorithm sees them.

    Attributes:
        policy: what is finetuned.
        start_error: largest absolute difference between a log-prob and its sampled value met before the epoch's first
            optimiser step: the ratio's distance from 1, in nats per dimension; None where none was computed.
        grad_norm: the gradient's global norm before clipping, at the last call of ``step``; None before the first one.
        had_gradient: whether any step of the epoch had a gradient that was not zero.
        steps, dropped_steps: calls of ``step`` in the epoch, and those of them whose fp16 gradient overflowed.
    """

    def __init__(
        self,
        policy: Policy,
        settings: Optimizer,
        runtime: Runtime,
    ) -> None:
        self.policy = policy
        self._processes, self._meter = runtime.processes, runtime.meter
        self._chunk_size, self._seed = runtime.chunk_size, runtime.seed
        self._max_grad_norm = math.inf if settings.max_grad_norm == "off" else settings.max_grad_norm
        self._parameters = list(policy.trainable().values())
        on_gpu = runtime.processes.device.type == "cuda"
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            foreach=not on_gpu,
            fused=on_gpu,  # without foreach's temporary copies of the moments
        )
        # fp16 gradients underflow without a scale; one that is not enabled changes nothing
        self._scaler = torch.amp.GradScaler(runtime.processes.device.type, enabled=policy.needs_loss_scale)
        self.start_error: float | None = None
        self.grad_norm: float | None = None
        self.had_gradient = False
        self.steps = self.dropped_steps = 0
        self._shrinking = 1.0  # of the losses since the last optimiser step: a power of two
        self._untouched = True  # no optimiser step since the rollout
        self._skips = False  # and there will be none
        self._where = self._epoch = "the start"

    def begin(self, rollout: Rollout) -> None:
        """Called by the trainer before an epoch's update."""
        self.start_error = None
        self.grad_norm = None
        self.had_gradient = self._skips = False
        self.steps = self.dropped_steps = 0
        self._untouched = True
        self._where = self._epoch = f"epoch {rollout.epoch + 1}"

    def end(self) -> None:
        """Called by the trainer after an epoch's update: every gradient must have become an optimiser step."""
        if not (self.steps or self._skips):
            raise InterfaceError(
                f"no update in {self._epoch}: learner.step() was never called, and neither was learner.skip_update()"
            )
        if any(parameter.grad is not None for parameter in self._parameters):
            raise InterfaceError(
                f"a gradient was left over in {self._epoch}: learner.step() must follow learner.backward()"
            )

    @property
    def loss_scale(self) -> float:
        """What fp16's gradients are multiplied by on their way; 1 in other precisions."""
        return float(self._scaler.get_scale())

    @property
    def device(self) -> torch.device:
        return self._processes.device

    def chunks(self, rollout: Rollout, where: Tensor | None = None) -> Iterator[Chunk]:
        """This process's (image, step) pairs in chunks of the sampler's shape, step by step.

        Args:
            where: ``(images, steps)`` bool; pairs outside of it are left out. All pairs by default.
        """
        assert rollout.latents is not None, "the algorithm's rollout_needs do not ask for trajectories"
        local = rollout.local
        wanted = torch.ones(len(local), rollout.num_steps) if where is None else where[local.start : local.stop]
        all_columns, all_images = torch.nonzero(wanted.T, as_tuple=True)
        pairs = zip(all_columns.split(self._chunk_size), all_images.split(self._chunk_size), strict=True)
        for columns, rows in pairs:
            if len(rows) == 0:
                return
            images, steps = rows + local.start, rollout.objective_steps[columns]
            groups = rollout.groups[images]
            self._where = f"{self._epoch}, among the prompts {_some(rollout.prompts, groups)}"
            yield Chunk(
                images=images,
                columns=columns,
                steps=steps.to(self.device),
                latents=rollout.latents[rows, steps].to(self.device),
                next_latents=rollout.latents[rows, steps + 1].to(self.device),
                log_probs_old=rollout.log_probs[images, columns].to(self.device),
                condition=rollout.conditions(images),
            )

    def clean_chunks(self, rollout: Rollout, where: Tensor | None = None) -> Iterator[CleanChunk]:
        """This process's images in chunks; ``where`` ``(images,)`` bool leaves out the others."""
        local = rollout.local
        wanted = torch.ones(len(local), dtype=torch.bool) if where is None else where[local.start : local.stop]
        for rows in torch.nonzero(wanted).flatten().split(self._chunk_size):
            if len(rows) == 0:
                return
            images = rows + local.start
            groups = rollout.groups[images]
            self._where = f"{self._epoch}, among the prompts {_some(rollout.prompts, groups)}"
            yield CleanChunk(images, rollout.clean_latents[rows].to(self.device), rollout.conditions(images))

    def split(self, count: int) -> Iterator[Tensor]:
        """This process's positions in a batch of ``count`` of the algorithm's own, in pieces of the chunk size."""
        share = self._processes.share(count)
        yield from (piece for piece in torch.arange(share.start, share.stop).split(self._chunk_size) if len(piece))

    def log_probs(self, pairs: Pairs) -> Tensor:
        """The policy's log-probs of a chunk, ``(m,)``, with gradient where gradients are on."""
        return self.predict(pairs).log_probs

    def predict(self, pairs: Pairs, *, reference: bool = False, fresh: Tensor | None = None) -> Prediction:
        """What the policy says of ``m`` pairs, and the reference of the same if asked: a call of each network.

        Before the epoch's first optimiser step this notes the ``start_error``. ``fresh`` ``(m,)`` bool marks the pairs
        that were sampled in this epoch, which it is about; all by default.
        """
        policy, schedule = self.policy, self.policy.schedule
        timesteps = schedule.timesteps[pairs.steps]

        def output_and_mean(weights: str) -> tuple[Tensor, Tensor]:
            output = policy.predict(pairs.latents, timesteps, pairs.condition, weights=weights)
            return output, schedule.mean(pairs.latents, output, pairs.steps)

        output, mean = output_and_mean(POLICY)
        log_probs = log_density(pairs.next_latents, mean, schedule.sigma[pairs.steps])
        differences = (log_probs.detach() - pairs.log_probs_old).abs()
        self._note_start(differences if fresh is None else differences[fresh])
        if not reference:
            return Prediction(output, mean, log_probs)
        with torch.no_grad():
            return Prediction(output, mean, log_probs, *output_and_mean(REFERENCE))

    def _note_start(self, differences: Tensor) -> None:
        if self._untouched and len(differences):
            self.start_error = max(self.start_error or 0.0, float(differences.max()))

    @torch.no_grad()
    def all_log_probs(self, rollout: Rollout) -> Tensor:
        """The policy's log-probs of a whole rollout, ``(images, steps)``, of all processes, without gradient."""
        values = torch.zeros_like(rollout.log_probs)
        for chunk in self.chunks(rollout):
            values[chunk.index] = self.log_probs(chunk).to(values)
        return self.sum(values)

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor summed over processes: for an ``(images, steps)`` tensor filled chunk by chunk, its gather."""
        return self._processes.sum(tensor)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of a scalar ``loss``; its normalisation is over the rollout of all processes."""
        if loss.dim() > 0:
            raise InterfaceError(f"the loss has shape {tuple(loss.shape)} at {self._where}: backward takes a scalar")
        if not loss.requires_grad:
            raise InterfaceError(f"the loss at {self._where} has no gradient: it does not depend on the policy")
        if not loss.isfinite():
            raise NonFiniteError(f"the loss is {loss.item()} at {self._where}")
        if self._scaler.is_enabled():
            self._shrink_for(abs(float(loss.detach())))
        self._scaler.scale(loss * self._shrinking if self._shrinking != 1 else loss).backward()

    def _shrink_for(self, size: float) -> None:
        """Lets no loss above 1 meet fp16's range, which ends at 65,504, where the loss scale alone would meet it.

        By a power of two, so that no number is rounded; ``step`` takes it back from the gradient, which is fp32. Else a
        loss of 1e8, as PRDP's small betas give, costs a dropped step for each halving of the loss scale.
        """
        if size * self._shrinking <= 1:
            return
        smaller = 2.0 ** -math.ceil(math.log2(size))
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad *= smaller / self._shrinking
        self._shrinking = smaller

    def step(self) -> None:
        """One optimiser step on the gradient summed over processes and clipped, which is then cleared.

        Without a gradient, since the last step had no ``backward`` after it or only losses that are flat, there is no
        step: momentum and weight decay would move the weights for nothing. In fp16 a gradient that overflowed is
        dropped without a step, and the loss scale halved: ``dropped_steps``. ``optimizer_steps`` counts neither.
        """
        for parameter in self._parameters:
            if parameter.grad is None:  # no chunk of this process had a gradient
                parameter.grad = torch.zeros_like(parameter)
            elif self._shrinking != 1:
                parameter.grad /= self._shrinking
        self._shrinking = 1.0
        self._processes.sum_in_place([parameter.grad for parameter in self._parameters if parameter.grad is not None])
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        self.steps += 1
        self.had_gradient |= bool(norm != 0)
        if norm.isfinite():
            self.grad_norm = float(norm)
        if norm == 0:
            self._optimizer.zero_grad(set_to_none=True)
            self._scaler.update()
            return
        if norm.isfinite():
            self._meter.counters.optimizer_steps += 1
        elif self._scaler.get_scale() <= 1:  # nothing to halve: fp32 and bf16, or an fp16 gradient that stays infinite
            raise NonFiniteError(f"the gradient's norm is {norm.item()} at {self._where}")
        else:
            self.dropped_steps += 1
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._untouched = False

    def skip_update(self) -> None:
        """Says that the epoch ends without an optimiser step on purpose, such as while images are being collected."""
        self._skips = True

    def restart_optimizer(self) -> None:
        """Forgets the optimiser's moments and step counts: the next step is as a first one."""
        self._optimizer.state.clear()

    def generator(self, *key: int | str) -> torch.Generator:
        """A CPU generator, the same in every process, that depends on the run's seed and ``key`` alone."""
        return keyed_random.generator(self._seed, "algorithm", *key)

    def state_dict(self) -> dict[str, Any]:
        scaler = {"scaler": self._scaler.state_dict()} if self._scaler.is_enabled() else {}
        return self._optimizer.state_dict() | scaler

    def load_state_dict(self, state: dict[str, Any]) -> None:
        optimizer = dict(state)
        self._scaler.load_state_dict(optimizer.pop("scaler", {}))
        self._optimizer.load_state_dict(optimizer)


def _some(prompts: list[str], groups: Tensor, limit: int = 3) -> str:
    """The first few prompts of ``groups``, for an error message."""
    unique = torch.unique(groups).tolist()
    shown = ", ".join(repr(prompts[group][:80]) for group in unique[:limit])
    return shown + (f" and {len(unique) - limit} more" if len(unique) > limit else "")
