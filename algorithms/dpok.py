"""DPOK: Diffusion Policy Optimization with KL regularization (Fan et al., NeurIPS 2023, arXiv 2305.16381).

Policy gradient on the transitions (x_t, x_{t-1}) of a replay, against a learned value of the noisy latent. With the
ratio rho = exp(L_t(theta) - L_t(old)), L_t averaged over the latent dimensions, the loss of a transition is

    -w_r (r - V(x_t, c, t)) clip(rho, 1 - c, 1 + c)  +  w_kl mean over dimensions of (eps_theta - eps_ref)^2

The clip is a plain clamp: outside of it the first term has no gradient, whatever the sign of the advantage. eps is the
guided noise, or whatever else the network predicts, ``ref`` the frozen reference: since the two step means differ by
output_weight_t (eps_theta - eps_ref), the second term is the step's KL without its weight output_weight_t^2 d /
(2 sigma_t^2). V is fitted by least squares to the final reward r, and V of an image comes from a network that was not
fitted to that image (``value.py``). Each epoch: the new transitions enter the replay, which keeps the most recent ones,
V is fitted to it, and then the policy is updated on minibatches drawn uniformly from it.

Of an epoch with more transitions than the replay holds, a uniform sample enters (published: its last denoising steps).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.algorithm import Algorithm, Cost
from rfbench.core.learner import Learner, Pairs
from rfbench.core.rollout import Rollout
from rfbench.suite.settings import Settings, search
from rfbench_algorithms.policy_gradient import ClipRange
from rfbench_algorithms.replay import Transitions, newest
from rfbench_algorithms.value import CrossFittedValue, baseline_quality, unseen


class DPOKConfig(Settings):
    """Settings of DPOK; a transition is one denoising step of one image."""

    reward_weight: float = Field(10.0, gt=0, description="w_r, per unit of the raw reward")
    kl_weight: float = Field(
        0.01,
        ge=0,
        description="w_kl, per squared unit of guided noise, mean over dimensions",
        json_schema_extra=search(1e-3, 10),
    )
    clip_range: ClipRange = 1e-4
    replay_size: int = Field(1000, ge=1, description="transitions kept, the most recent")
    updates_per_epoch: int = Field(5, ge=1, description="optimiser steps of the policy per epoch")
    batch_size: int = Field(64, ge=1, description="transitions drawn for each of them")
    value_inputs: Literal["prompt", "latent"] = Field(
        "prompt", description="what V sees beside the denoising step: the prompt, or also the latent, as published"
    )
    value_folds: int = Field(4, ge=2, description="k: V of an image is of a network fitted to the k - 1 other folds")
    value_updates_per_epoch: int = Field(40, ge=1, description="optimiser steps of the value networks per epoch")
    value_batch_size: int = Field(256, ge=1, description="transitions drawn for each of them")
    value_learning_rate: float = Field(1e-3, gt=0, description="of AdamW")


def dpok_loss(log_probs: Tensor, old: Tensor, advantages: Tensor, noise_errors: Tensor, config: DPOKConfig) -> Tensor:
    """The loss of transitions, ``(m,)`` from four ``(m,)``; ``noise_errors`` are means of (eps_theta - eps_ref)^2."""
    ratio = (log_probs - old).exp().clamp(1 - config.clip_range, 1 + config.clip_range)
    return -config.reward_weight * advantages * ratio + config.kl_weight * noise_errors


class DPOK(Algorithm):
    """Policy gradient with replay, a value network and a KL term on the predicted noise."""

    Config = DPOKConfig
    config: DPOKConfig

    def __init__(self, config: DPOKConfig) -> None:
        super().__init__(config)
        self._replay: Transitions | None = None
        self._value: CrossFittedValue | None = None

    @property
    def clip_range(self) -> float | None:
        return self.config.clip_range

    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        drawn = self.config.updates_per_epoch * self.config.batch_size
        return Cost(forwards=2 * drawn, backwards=drawn)  # each under the policy and under the reference

    def update(self, rollout: Rollout, learner: Learner) -> dict[str, float]:
        config, epoch = self.config, rollout.epoch
        new = newest(rollout, learner, config.replay_size, config.value_folds)
        replay = new if self._replay is None else self._replay.join(new, config.replay_size)
        self._replay = replay
        all_advantages, quality = self._advantages(replay, learner, epoch)
        log = torch.zeros(3, config.updates_per_epoch, config.batch_size)
        for k in range(config.updates_per_epoch):
            drawn = replay.draw(config.batch_size, learner.generator("dpok", epoch, k))
            for where in learner.split(config.batch_size):
                batch = replay.take(drawn[where])
                pairs = _pairs(batch, learner)
                found = learner.predict(pairs, reference=True, fresh=batch.epochs == epoch)
                assert found.reference_output is not None
                log_probs, old = found.log_probs, pairs.log_probs_old
                noise_error = (found.output - found.reference_output).square().flatten(1).mean(1)
                advantages = all_advantages[drawn[where]].to(log_probs)
                losses = dpok_loss(log_probs, old, advantages, noise_error, config)
                learner.backward(losses.sum() / config.batch_size)
                log[:, k, where] = torch.stack([log_probs - old, advantages, noise_error]).detach().cpu()
            learner.step()
        log_ratios, advantages, noise_errors = learner.sum(log).double()
        return {
            "clip_fraction": float(((log_ratios.exp() - 1).abs() > config.clip_range).double().mean()),
            "ratio_std": float(log_ratios.exp().std(correction=0)),
            "advantage_mean": float(advantages.mean()),
            "advantage_std": float(advantages.std(correction=0)),
            "noise_error": float(noise_errors.mean()),
            "replay_age": float((epoch - replay.epochs).double().mean()),
            **quality,
        }

    def _advantages(self, replay: Transitions, learner: Learner, epoch: int) -> tuple[Tensor, dict[str, float]]:
        """r - V of the replay's transitions ``(n,)``, V fitted to the replay, and how good V is on the epoch's own.

        They are alike in every process.
        """
        device, config = learner.device, self.config
        inputs, steps = self._value_inputs(replay, learner), replay.steps.to(device)
        folds, rewards = replay.folds.to(device), replay.rewards.to(device)
        if self._value is None:
            sizes = (inputs.shape[1], learner.policy.schedule.num_steps, config.value_folds)
            generator = learner.generator("dpok", "value")
            self._value = CrossFittedValue(*sizes, config.value_learning_rate, generator).to(device)
            self._value.standardise_by(rewards)
        for k in range(config.value_updates_per_epoch):
            rows = replay.draw(config.value_batch_size, learner.generator("dpok", "value", epoch, k)).to(device)
            self._value.fit(inputs[rows], steps[rows], folds[rows], rewards[rows])
        with torch.no_grad():
            values = self._value(inputs, steps)
        new = (replay.epochs == epoch).to(device)
        means = replay.prompt_means.to(device)
        quality = baseline_quality(values[:, new], folds[new], rewards[new], means[new])
        return (rewards - unseen(values, folds)).cpu(), quality

    @torch.no_grad()
    def _value_inputs(self, replay: Transitions, learner: Learner) -> Tensor:
        """What V sees of each transition beside its step, ``(n, inputs)``: the prompt's features, and x_t if asked."""
        prompts = list(dict.fromkeys(replay.prompts))
        row_of = {prompt: row for row, prompt in enumerate(prompts)}
        features = learner.policy.model.prompt_features(learner.policy.encode_prompts(prompts)).float()
        inputs = features[[row_of[prompt] for prompt in replay.prompts]]
        if self.config.value_inputs == "prompt":
            return inputs
        return torch.cat([replay.latents[:, 0].flatten(1).to(inputs), inputs], dim=1)

    def state_dict(self) -> dict[str, Any]:
        if self._replay is None or self._value is None:
            return {}  # before the first update
        value = {"networks": self._value.state_dict(), "optimizer": self._value.optimizer.state_dict()}
        return {"replay": vars(self._replay), "value": value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not state:
            return
        replay, networks = dict(state["replay"]), state["value"]["networks"]
        self._replay = Transitions(replay.pop("prompts"), **{name: value.cpu() for name, value in replay.items()})
        num_inputs, num_steps = (
            networks["networks.0.layers.0.weight"].shape[1],
            len(networks["networks.0.scales.weight"]),
        )
        sizes, config = (num_inputs, num_steps, self.config.value_folds), self.config
        self._value = CrossFittedValue(*sizes, config.value_learning_rate, torch.Generator()).to(
            networks["mean"].device
        )
        self._value.load_state_dict(networks)
        self._value.optimizer.load_state_dict(state["value"]["optimizer"])


def _pairs(batch: Transitions, learner: Learner) -> Pairs:
    latents, next_latents = batch.latents.to(learner.device).unbind(1)
    return Pairs(
        steps=batch.steps.to(learner.device),
        latents=latents,
        next_latents=next_latents,
        log_probs_old=batch.log_probs.to(learner.device),
        condition=learner.policy.encode_prompts(batch.prompts),
    )
