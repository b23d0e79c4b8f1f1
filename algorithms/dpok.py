"""DPOK: Diffusion Policy Optimization with KL regularization (Fan et al., NeurIPS 2023, arXiv 2305.16381).

Policy gradient on the transitions (x_t, x_{t-1}) of a replay, against a learned value of the noisy latent. With the
ratio rho = exp(L_t(theta) - L_t(old)), L_t averaged over the latent dimensions, the loss of a transition is

    -w_r (r - V(x_t, c, t)) clip(rho, 1 - c, 1 + c)  +  w_kl mean over dimensions of (eps_theta - eps_ref)^2

The clip is a plain clamp: outside of it the first term has no gradient, whatever the sign of the advantage. eps is the
guided noise, ``ref`` the frozen reference: since the two step means differ by noise_weight_t (eps_theta - eps_ref), the
second term is the step's KL without its weight noise_weight_t^2 d / (2 sigma_t^2). V is fitted by least squares to the
final reward r. Each epoch: the new transitions enter the replay, which keeps the most recent ones, V is fitted, and
then the policy is updated, both on minibatches drawn uniformly from the replay.

Of an epoch with more transitions than the replay holds, a uniform sample enters (published: its last denoising steps).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from rfbench.core.algorithm import Algorithm, Cost
from rfbench.core.learner import Learner
from rfbench.core.rollout import Rollout
from rfbench.core.schedule import log_density
from rfbench.suite.settings import Settings


class DPOKConfig(Settings):
    """Settings of DPOK; a transition is one denoising step of one image."""

    reward_weight: float = Field(10.0, gt=0, description="w_r, per unit of the raw reward")
    kl_weight: float = Field(0.01, ge=0, description="w_kl, per squared unit of guided noise, mean over dimensions")
    clip_range: float = Field(1e-4, gt=0, description="c of the ratio; to first order in nats per latent dimension")
    replay_size: int = Field(1000, ge=1, description="transitions kept, the most recent")
    updates_per_epoch: int = Field(5, ge=1, description="optimiser steps of the policy per epoch")
    batch_size: int = Field(64, ge=1, description="transitions drawn for each of them")
    value_updates_per_epoch: int = Field(1, ge=1, description="optimiser steps of the value network per epoch")
    value_batch_size: int = Field(1280, ge=1, description="transitions drawn for each of them; published: 5 x 256")
    value_learning_rate: float = Field(1e-4, gt=0, description="of AdamW")


def dpok_loss(log_probs: Tensor, old: Tensor, advantages: Tensor, noise_errors: Tensor, config: DPOKConfig) -> Tensor:
    """The loss of transitions, ``(m,)`` from four ``(m,)``; ``noise_errors`` are means of (eps_theta - eps_ref)^2."""
    ratio = (log_probs - old).exp().clamp(1 - config.clip_range, 1 + config.clip_range)
    return -config.reward_weight * advantages * ratio + config.kl_weight * noise_errors


class ValueNetwork(nn.Module):
    """V(x_t, c, t): an MLP whose layers are scaled, unit by unit, by an embedding of the denoising step."""

    def __init__(self, num_inputs: int, num_steps: int, learning_rate: float, generator: torch.Generator) -> None:
        super().__init__()
        sizes = [num_inputs, 256, 256, 256]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self.scales = nn.Embedding(num_steps, 3 * 256)
        self.head = nn.Linear(256, 1)
        for linear in (*self.layers, self.head):
            nn.init.xavier_normal_(linear.get_parameter("weight"), generator=generator)
            nn.init.zeros_(linear.get_parameter("bias"))
        nn.init.uniform_(self.scales.weight, generator=generator)
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=learning_rate)

    def forward(self, inputs: Tensor, steps: Tensor) -> Tensor:
        """Values ``(m,)`` of inputs ``(m, num_inputs)`` at denoising steps ``(m,)``."""
        for layer, scale in zip(self.layers, self.scales(steps).chunk(3, dim=1), strict=True):
            inputs = (scale * layer(inputs)).relu()
        return self.head(inputs).squeeze(1)


@dataclass
class Transitions:
    """``n`` transitions on the CPU."""

    prompts: list[str]
    epochs: Tensor  # (n,) when sampled
    steps: Tensor  # (n,) denoising steps
    rewards: Tensor  # (n,) their images'
    log_probs: Tensor  # (n,) when sampled
    latents: Tensor  # (n, 2, ...) x_t and x_{t-1}

    def take(self, rows: Tensor) -> Transitions:
        tensors = {name: value[rows] for name, value in vars(self).items() if name != "prompts"}
        return Transitions([self.prompts[row] for row in rows.tolist()], **tensors)

    def draw(self, count: int, generator: torch.Generator) -> Transitions:
        """A uniform sample with replacement."""
        return self.take(torch.randint(len(self.prompts), (count,), generator=generator))

    def join(self, newer: Transitions, size: int) -> Transitions:
        """The last ``size`` of both."""
        tensors = {n: torch.cat([v, getattr(newer, n)]) for n, v in vars(self).items() if n != "prompts"}
        joined = Transitions([*self.prompts, *newer.prompts], **tensors)
        return joined.take(torch.arange(len(joined.prompts))[-size:])


class DPOK(Algorithm):
    """Policy gradient with replay, a value network and a KL term on the predicted noise."""

    Config = DPOKConfig
    config: DPOKConfig

    def __init__(self, config: DPOKConfig) -> None:
        super().__init__(config)
        self._replay: Transitions | None = None
        self._value: ValueNetwork | None = None

    @property
    def clip_range(self) -> float | None:
        return self.config.clip_range

    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        drawn = self.config.updates_per_epoch * self.config.batch_size
        return Cost(forwards=2 * drawn, backwards=drawn)  # each under the policy and under the reference

    def update(self, rollout: Rollout, learner: Learner) -> dict[str, float]:
        config, epoch = self.config, rollout.epoch
        newest = _newest(rollout, learner, config.replay_size)
        replay = newest if self._replay is None else self._replay.join(newest, config.replay_size)
        self._replay = replay
        value, value_loss = self._fit_value(replay, learner, epoch)
        log = torch.zeros(3, config.updates_per_epoch, config.batch_size)
        for k in range(config.updates_per_epoch):
            drawn = replay.draw(config.batch_size, learner.generator("dpok", epoch, k))
            for where in learner.split(config.batch_size):
                batch = drawn.take(where)
                log_probs, noise_error = _predict(batch, learner)
                old, fresh = batch.log_probs.to(log_probs), batch.epochs == epoch
                learner.note_start(log_probs[fresh], old[fresh])
                with torch.no_grad():
                    advantage = batch.rewards.to(log_probs) - value(*_value_inputs(batch, learner))
                losses = dpok_loss(log_probs, old, advantage, noise_error, config)
                learner.backward(losses.sum() / config.batch_size)
                log[:, k, where] = torch.stack([log_probs - old, advantage, noise_error]).detach().cpu()
            learner.step()
        log_ratios, advantages, noise_errors = learner.sum(log).double()
        return {
            "clip_fraction": float(((log_ratios.exp() - 1).abs() > config.clip_range).double().mean()),
            "ratio_std": float(log_ratios.exp().std(correction=0)),
            "advantage_mean": float(advantages.mean()),
            "advantage_std": float(advantages.std(correction=0)),
            "noise_error": float(noise_errors.mean()),
            "value_loss": value_loss,
            "replay_age": float((epoch - replay.epochs).double().mean()),
        }

    def _fit_value(self, replay: Transitions, learner: Learner, epoch: int) -> tuple[ValueNetwork, float]:
        """V after its updates, alike in every process, and the mean squared error before the last of them."""
        num_inputs = _value_inputs(replay.take(torch.arange(1)), learner)[0].shape[1]
        sizes, generator = (num_inputs, learner.policy.schedule.num_steps), learner.generator("dpok", "value")
        value = self._value or ValueNetwork(*sizes, self.config.value_learning_rate, generator).to(learner.device)
        self._value = value
        for k in range(self.config.value_updates_per_epoch):
            batch = replay.draw(self.config.value_batch_size, learner.generator("dpok", "value", epoch, k))
            loss = (value(*_value_inputs(batch, learner)) - batch.rewards.to(learner.device)).square().mean()
            value.optimizer.zero_grad()
            loss.backward()
            value.optimizer.step()
        return value, float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        if self._replay is None or self._value is None:
            return {}  # before the first update
        value = {"network": self._value.state_dict(), "optimizer": self._value.optimizer.state_dict()}
        return {"replay": vars(self._replay), "value": value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not state:
            return
        replay, network = dict(state["replay"]), state["value"]["network"]
        self._replay = Transitions(replay.pop("prompts"), **{name: value.cpu() for name, value in replay.items()})
        first, sizes = network["layers.0.weight"], (network["layers.0.weight"].shape[1], len(network["scales.weight"]))
        self._value = ValueNetwork(*sizes, self.config.value_learning_rate, torch.Generator()).to(first.device)
        self._value.load_state_dict(network)
        self._value.optimizer.load_state_dict(state["value"]["optimizer"])


def _newest(rollout: Rollout, learner: Learner, size: int) -> Transitions:
    """``size`` of the rollout's transitions at random, or all if there are fewer; alike in every process."""
    assert rollout.latents is not None
    order = torch.randperm(rollout.log_probs.numel(), generator=learner.generator("dpok", "replay", rollout.epoch))
    images, columns = order[:size] // rollout.num_steps, order[:size] % rollout.num_steps
    steps = learner.policy.schedule.objective_steps.cpu()[columns]
    here = (images >= rollout.local.start) & (images < rollout.local.stop)
    rows = images[here] - rollout.local.start
    latents = torch.zeros(len(images), 2, *rollout.latents.shape[2:])
    latents[here] = torch.stack([rollout.latents[rows, steps[here]], rollout.latents[rows, steps[here] + 1]], dim=1)
    return Transitions(
        prompts=[rollout.prompts[group] for group in rollout.groups[images].tolist()],
        epochs=torch.full_like(images, rollout.epoch),
        steps=steps,
        rewards=rollout.rewards[images],
        log_probs=rollout.log_probs[images, columns],
        latents=learner.sum(latents),
    )


def _predict(batch: Transitions, learner: Learner) -> tuple[Tensor, Tensor]:
    """The policy's log-probs, and its guided noise's mean squared distance from the reference's, ``(m,)`` each."""
    policy, schedule = learner.policy, learner.policy.schedule
    steps, condition = batch.steps.to(learner.device), policy.encode_prompts(batch.prompts)
    latents, next_latents = batch.latents.to(learner.device).unbind(1)
    noise = policy.predict_noise(latents, schedule.timesteps[steps], condition)
    with torch.no_grad():
        reference_noise = policy.predict_noise(latents, schedule.timesteps[steps], condition, reference=True)
    log_probs = log_density(next_latents, schedule.mean(latents, noise, steps), schedule.sigma[steps])
    return log_probs, (noise - reference_noise).square().flatten(1).mean(1)


def _value_inputs(batch: Transitions, learner: Learner) -> tuple[Tensor, Tensor]:
    """Flattened x_t beside the prompt's features, ``(m, inputs)``, and the steps ``(m,)``."""
    features = learner.policy.model.prompt_features(learner.policy.encode_prompts(batch.prompts))
    latents = batch.latents[:, 0].flatten(1).to(features)
    return torch.cat([latents, features], dim=1), batch.steps.to(learner.device)
