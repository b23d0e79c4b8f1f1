"""Whether the parts of a run fit one another, told from settings and small files before any weights load."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import product

import torch

from rfbench.core.algorithm import Algorithm
from rfbench.core.noising.samplers import is_deterministic
from rfbench.core.policy import POLICY, REFERENCE, check_trainable
from rfbench.core.prompts import PromptSet
from rfbench.core.reward import HeadedReward
from rfbench.core.rollout import RolloutNeeds
from rfbench.errors import InputError, InterfaceError
from rfbench.planning.suite_components import SuiteComponents
from rfbench.plugins.component import Component
from rfbench.suite.suite import AlgorithmSettings, Sampler, Suite

# Standard deviation of a log-ratio's error, in nats per latent dimension, of two policies a step apart on the embedded
# world's UNet (docs/precision.md). A density is a mean over dimensions, whose errors are taken to be independent.
LOG_RATIO_ERRORS, THEIR_DIMENSIONS = {"bf16": 1e-3, "fp16": 1.3e-4}, 256


def check_algorithm(algorithm: Component, label: str, settings: AlgorithmSettings, *size: int) -> None:
    """An ``InputError`` where the algorithm cannot learn from epochs of this ``size``, the arguments of ``cost``."""
    if not isinstance(algorithm.cls.rollout_needs, RolloutNeeds):
        raise InterfaceError(
            f"the algorithm {algorithm.name!r}: rollout_needs is {algorithm.cls.rollout_needs!r}, not a RolloutNeeds"
        )
    needed = algorithm.cls.rollout_needs.min_images_per_prompt
    if settings.images_per_prompt < needed:
        raise InputError(
            f"{label} needs at least {needed} images per prompt, but images_per_prompt is "
            f"{settings.images_per_prompt}; use --set algorithms.{label}.images_per_prompt={needed} or more"
        )
    _check_snapshots(algorithm)
    if settings.sample_from not in (POLICY, REFERENCE, *algorithm.cls.snapshots):
        raise InputError(
            f"{label}: sample_from is {settings.sample_from!r}, but {algorithm.name} keeps no such copy of the policy; "
            f"use --set algorithms.{label}.sample_from=policy"
        )
    if settings.sample_from != POLICY and not algorithm.cls.rollout_needs.off_policy:
        raise InputError(
            f"{label}: sample_from is {settings.sample_from!r}, but {algorithm.name} is defined only for samples of "
            f"the policy itself; use --set algorithms.{label}.sample_from=policy"
        )
    try:
        algorithm.cls.check(algorithm.config, *size)
    except InputError as error:
        raise InputError(f"{label} cannot learn with these settings of algorithms.{label}: {error}") from None


def _check_snapshots(algorithm: Component) -> None:
    names = algorithm.cls.snapshots
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise InterfaceError(
            f"the algorithm {algorithm.name!r}: snapshots is {names!r}; it is a tuple of names, such as ('old',)"
        )
    taken = [name for name in names if name in (POLICY, REFERENCE)]
    if taken or len(set(names)) < len(names):
        raise InterfaceError(
            f"the algorithm {algorithm.name!r}: snapshots is {names!r}; each needs a name of its own, and "
            f"{POLICY!r} and {REFERENCE!r} are taken"
        )


def check_sampler(sampler: Sampler) -> None:
    """An ``InputError`` where a suite's own sampler is none, or one by which no KL can be evaluated."""
    if is_deterministic(sampler):
        raise InputError(
            f"sampler.kind is {sampler.kind!r}, which leaves no step with noise, so none with a density, and no KL to "
            "evaluate; use another, or set it for an algorithm's training alone, as algorithms.NAME.sampler.kind"
        )


def check_training_sampler(algorithm: Component, components: SuiteComponents, label: str) -> None:
    """An ``InputError`` where the algorithm or the model cannot do with what training draws images with."""
    suite, needs, table = components.suite, algorithm.cls.rollout_needs, f"algorithms.{label}.sampler"
    own, sampler = suite.settings_for(label).sampler, suite.training_sampler(label)
    if needs.trajectories and is_deterministic(sampler):
        what, cure = ("eta is 0", "eta=1") if sampler.eta == 0 else (f"kind is {sampler.kind!r}", "kind=ddpm")
        raise InputError(
            f"{label} trains on trajectories, whose steps need noise, but {table}.{what}; use --set "
            f"{table}.{cure}, or leave it out; {table}.window makes all but a few steps deterministic"
        )
    if needs.deterministic and not is_deterministic(sampler):
        raise InputError(
            f"{label} needs images of a chain without noise, but its sampler, {sampler.kind}, draws some; use --set "
            f"{table}.kind=ode"
        )
    if own is None:
        return
    if own.window is not None and not needs.trajectories:
        raise InputError(
            f"{table}.window is set, but {algorithm.name} trains on no trajectories: which steps draw noise is nothing "
            "to it; leave the window out"
        )
    model = components.model
    try:
        model.cls.check_suite(model.config, suite.model_copy(update={"sampler": sampler}))
    except InputError as error:
        raise InputError(f"the model {model.name} does not take {table}: {error}") from None


def check_reward_heads(algorithm: Component, components: SuiteComponents, label: str) -> None:
    """An ``InputError`` where the algorithm needs a reward's terms and the suite's has none."""
    if algorithm.cls.rollout_needs.reward_heads and not issubclass(components.reward.cls, HeadedReward):
        raise InputError(
            f"{label} needs a reward's terms one by one, but reward {components.reward.name} has no heads; use a "
            "reward with heads, such as --set reward.name=weighted-sum with its terms"
        )


def check_components(suite: Suite, components: SuiteComponents) -> None:
    """An ``InputError`` where the model cannot do what the suite asks, or a reward scores something else."""
    model = components.model
    model.cls.check_suite(model.config, suite)
    for where, reward in components.rewards().items():
        for part in reward.parts():
            if part.cls.image_kind not in (None, model.cls.image_kind):
                raise InputError(
                    f"{where}: {part.name} scores {part.cls.image_kind}, but the model {model.name} makes "
                    f"{model.cls.image_kind}; use a reward of the model's own world"
                )
    if suite.finetune.method == "lora" or suite.compute.gradient_checkpointing:
        untrained = model.cls.untrained(model.config, torch.device("meta"))
        if untrained is not None:
            check_trainable(untrained, suite)


def check_prompts(
    components: SuiteComponents, prompts: Mapping[str, PromptSet], evaluated: Mapping[str, list[str]]
) -> None:
    """An ``InputError`` where the model or a reward does not take a prompt that it would meet, or these are too few."""
    _check_offsets(components.suite, len(prompts["train"]))
    training: dict[str, Iterable[str]] = {"prompts.train": prompts["train"]}
    evaluation: dict[str, Iterable[str]] = {f"evaluation.sets.{name}": these for name, these in evaluated.items()}
    readers = {"model": (components.model, training | evaluation)}
    for where, reward in components.rewards().items():
        readers[where] = (reward, training | evaluation if where == "reward" else evaluation)
    for where, (component, sets) in readers.items():
        for part, (name, these) in product(component.parts(), sets.items()):
            try:
                part.cls.check_prompts(part.config, these)
            except InputError as error:
                raise InputError(f"{where} ({part.name}) does not take the prompts of {name}: {error}") from None


def _check_offsets(suite: Suite, num_prompts: int) -> None:
    added = suite.reward_offsets.added_std if suite.reward_offsets else None
    if added is not None and num_prompts < 2:
        raise InputError(
            f"reward_offsets.added_std is {added:g}, but prompts.train has {num_prompts} prompt: one constant on every "
            "reward adds no difference between prompts; train on at least 2, or leave reward_offsets.added_std out"
        )


def rounding_remark(algorithm: Algorithm, label: str, precision: str, latent_dimensions: int) -> str | None:
    """What to say where a precision's rounding is more than the objective's clip bears; None where it is not."""
    bears, clip_range = algorithm.largest_start_error, algorithm.clip_range
    error = LOG_RATIO_ERRORS.get(precision, 0.0) * math.sqrt(THEIR_DIMENSIONS / latent_dimensions)
    if bears is None or clip_range is None or error <= bears:
        return None
    return (
        f"in {precision} a log-ratio errs by about {error:.1e}, beside {label}'s clip range of {clip_range:g}: "
        "rounding decides part of what is clipped (docs/precision.md); use --set compute.precision=fp32"
    )
