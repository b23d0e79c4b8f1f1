"""Log-ratios, clip decisions and gradients of a second step in one precision, and how far they are from fp32's."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rfbench.core.learner import Learner
from rfbench.core.policy import REFERENCE
from rfbench.core.schedule import log_density, per_row
from rfbench.errors import NonFiniteError
from rfbench_benchmarks.precision.rounding import rounded
from rfbench_benchmarks.precision.second_step import OLD, SecondStep

PLAIN, MEANS, LAST_LAYER = "plain", "difference of means", "last layer in fp32"
REMEDIES = {"fp32": (PLAIN, MEANS), "bf16": (PLAIN, MEANS, LAST_LAYER), "fp16": (PLAIN, MEANS, LAST_LAYER)}
FIRST_SCALE = 2.0**16  # of fp16's losses, as torch's GradScaler has it


class Outcome(NamedTuple):
    """What one precision with one remedy makes of a second step's ``n`` pairs; float64, on the CPU."""

    log_ratios: Tensor  # (n,) to the policy that sampled
    outside: Tensor  # (n,) bool
    gradient: Tensor  # (parameters,)


class Error(NamedTuple):
    """How far an outcome is from another one of the same pairs."""

    log_ratio_std: float  # of the differences of log-ratios, in nats per latent dimension
    decisions_changed: float  # share of the pairs that are outside of the clip range in one alone
    cosine: float  # of the gradients


def outcomes(learner: Learner, step: SecondStep, precision: str) -> dict[str, Outcome]:
    """By remedy. Those of one network share its calls."""
    found: dict[str, Outcome] = {}
    for last_layer_in_fp32 in (False, True):
        remedies = [name for name in REMEDIES[precision] if (name == LAST_LAYER) == last_layer_in_fp32]
        if not remedies:
            continue
        with rounded(learner.policy, precision, last_layer_in_fp32=last_layer_in_fp32):
            direct, of_means = _log_ratios(learner, step)
            ratios = {name: of_means if name == MEANS else direct for name in remedies}
            weights = {name: step.coefficients(*pair) for name, pair in ratios.items()}
            gradients = _gradients(learner, step, list(weights.values()), FIRST_SCALE if precision == "fp16" else 1.0)
        for name, gradient in zip(remedies, gradients, strict=True):
            old = ratios[name][0][step.where]
            found[name] = Outcome(old, step.outside(old), gradient)
    return found


def error(found: Outcome, exact: Outcome) -> Error:
    """How far ``found`` is from ``exact``."""
    norms = (found.gradient.norm() * exact.gradient.norm()).clamp(min=1e-300)
    return Error(
        float((found.log_ratios - exact.log_ratios).std()),
        float((found.outside != exact.outside).double().mean()),
        float(torch.dot(found.gradient, exact.gradient) / norms),
    )


Ratios = tuple[Tensor, Tensor]  # (images, steps) to the policy that sampled, and to the reference


@torch.no_grad()
def _log_ratios(learner: Learner, step: SecondStep) -> tuple[Ratios, Ratios]:
    """As differences of log-densities, and from the differences of means; 0 outside of the step's pairs."""
    policy, schedule = learner.policy, learner.policy.schedule
    found = torch.zeros(2, 2, *step.where.shape, dtype=torch.float64)
    for chunk in learner.chunks(step.rollout, where=step.where):
        sigma = schedule.sigma[chunk.steps]
        mean = policy.step_mean(chunk.latents, chunk.steps, chunk.condition)
        log_probs = log_density(chunk.next_latents, mean, sigma)
        for k, weights in enumerate((OLD, REFERENCE)):
            other = policy.step_mean(chunk.latents, chunk.steps, chunk.condition, weights=weights)
            direct = log_probs - log_density(chunk.next_latents, other, sigma)
            product = (mean - other) * (2 * chunk.next_latents - mean - other)
            halved = product / (2 * per_row(schedule.sigma, chunk.steps, mean).square())
            for way, values in enumerate((direct, halved.flatten(1).mean(1))):
                found[way, k][chunk.index] = values.double().cpu()
    return (found[0, 0], found[0, 1]), (found[1, 0], found[1, 1])


def _gradients(learner: Learner, step: SecondStep, weights: list[Tensor], scale: float) -> list[Tensor]:
    """Of sum w_it L_it for each of ``weights`` ``(images, steps)``, flat; the scale is halved until all are finite."""
    while True:
        found = _scaled_gradients(learner, step, weights, scale)
        if all(bool(gradient.isfinite().all()) for gradient in found):
            return found
        scale /= 2
        if scale < 1:
            raise NonFiniteError("the gradient is not finite, whatever the loss scale")


def _scaled_gradients(learner: Learner, step: SecondStep, weights: list[Tensor], scale: float) -> list[Tensor]:
    parameters = list(learner.policy.trainable().values())
    sums = [torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64) for _ in weights]
    for chunk in learner.chunks(step.rollout, where=step.where):
        log_probs = learner.log_probs(chunk)
        for k, of_all in enumerate(weights):
            loss = scale * (of_all[chunk.index].to(log_probs) * log_probs).sum()
            parts = torch.autograd.grad(loss, parameters, retain_graph=k < len(weights) - 1)
            sums[k] += torch.cat([part.flatten() for part in parts]).double().cpu() / scale
    return sums
