"""Everything about a run that can be checked and counted before any weights load.

In this order: the settings, which make an ``Outline``; then the files that it needs; then the prompts, which make it a
``Plan``.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import astuple, dataclass
from importlib.util import find_spec
from typing import Any

import torch

from rfbench.core.algorithm import Cost
from rfbench.core.noising.diffusion import Diffusion
from rfbench.core.noising.process import Process
from rfbench.core.policy import POLICY, REFERENCE
from rfbench.core.prompts import PromptSet, epoch_prompts
from rfbench.errors import InputError, did_you_mean
from rfbench.files import sha256_of_all
from rfbench.hub.sources import Need, missing
from rfbench.names import check_name
from rfbench.planning.compatibility import (
    check_algorithm,
    check_components,
    check_prompts,
    check_reward_heads,
    check_sampler,
    check_training_sampler,
)
from rfbench.planning.evaluation_prompts import choose_prompts
from rfbench.planning.suite_components import SuiteComponents, suite_components
from rfbench.plugins import registry
from rfbench.plugins.component import Component, find_component
from rfbench.records.format import PluginRecord
from rfbench.records.identity import Planned
from rfbench.suite.loading import suite_names
from rfbench.suite.suite import AlgorithmSettings, PluginRef, Sampler, Suite, TrackerSettings


@dataclass(frozen=True)
class Totals:
    """What a whole run spends. Forwards and backwards count latents through the denoiser.

    Those of the base model's images for ``reward_offsets`` count as evaluation, as many as if no prompt came twice.
    """

    reward_queries: int
    training_forwards: int
    training_backwards: int
    evaluation_forwards: int

    def __add__(self, other: Totals) -> Totals:
        return Totals(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def part(self, share: float) -> Totals:
        """What ``share`` of the run, from 0 to 1, spends."""
        return Totals(*(round(share * count) for count in astuple(self)))


@dataclass(frozen=True)
class Outline(SuiteComponents):
    """A run of one algorithm on a suite whose settings are valid; its files need not be there.

    Attributes:
        label: the algorithm's table in the suite.
        prompts_per_epoch: groups per epoch; times ``settings.images_per_prompt`` it is the budget.
    """

    label: str
    seed: int
    settings: AlgorithmSettings
    algorithm: Component
    prompts_per_epoch: int

    def resolved(self) -> dict[str, Any]:
        """The suite with every default filled in, and of its algorithms this one's table."""
        settings = self.settings.model_dump(mode="json")
        config = {key: value for key, value in self.algorithm.resolved().items() if key != "name"}
        table = settings | {"algorithm": self.algorithm.name, "config": config}
        return super().resolved() | {"algorithms": {self.label: table}}

    def plugins(self) -> dict[str, PluginRecord]:
        """The code of the run's plugins, by place."""
        return self.algorithm.plugins("algorithm") | super().plugins()

    def planned(self, processes: int) -> Planned:
        """What identifies the run, to be held against records."""
        digests = {place: sha256_of_all(paths) for place, paths in self.inputs().items()}
        return Planned(self.resolved(), self.label, self.plugins(), digests, processes)

    @property
    def sampler(self) -> Sampler:
        """What training draws its images with."""
        return self.suite.training_sampler(self.label)

    @property
    def calls_per_prediction(self) -> int:
        """Latents through the denoiser for one prediction of the training: two with guidance."""
        return _calls(self.sampler)

    @property
    def objective_steps(self) -> int:
        """Denoising steps of an epoch's images that carry a gradient."""
        return _objective_steps(self.model, self.suite, self.label)

    def epoch_cost(self) -> Cost:
        """Latents through the denoiser in one epoch, sampling and reference included."""
        images, sampler = self.suite.budget.reward_queries_per_epoch, self.sampler
        steps, settings, rollout_needs = self.objective_steps, self.settings, self.algorithm.cls.rollout_needs
        update = self.algorithm.make().cost(self.prompts_per_epoch, settings.images_per_prompt, steps)
        # sampling gives the log-probs of who samples; those of the other, where they are needed, cost a pass
        others = settings.sample_from != POLICY and rollout_needs.trajectories
        others += settings.sample_from != REFERENCE and rollout_needs.reference_log_probs
        sampling = images * (sampler.num_steps + steps * others)
        update_calls = _calls(sampler) if update.guided else 1
        return Cost(_calls(sampler) * sampling + update_calls * update.forwards, update_calls * update.backwards)

    def evaluation_forwards(self) -> int:
        """Latents through the denoiser in one evaluation: sampling, and the reference for the KL."""
        images = sum(s.num_prompts * s.images_per_prompt for s in self.suite.evaluation.sets.values())
        sampler = self.suite.sampler
        return _calls(sampler) * images * (sampler.num_steps + _chain_steps(self.model, sampler))

    def offset_forwards(self) -> int:
        """Latents through the denoiser for one epoch's ``reward_offsets``, if none of its prompts came before."""
        offsets, sampler = self.suite.reward_offsets, self.sampler
        images = self.prompts_per_epoch * ((offsets.base_images or 0) if offsets else 0)
        return _calls(sampler) * images * sampler.num_steps

    def sampling_forwards(self) -> int:
        """Latents through the denoiser without gradient for the images of the whole run, and for its evaluations."""
        images = self.suite.budget.reward_queries_per_epoch * self.suite.epochs
        evaluations = self.evaluation_forwards() * self.num_evaluations()
        return self.calls_per_prediction * images * self.sampler.num_steps + evaluations

    def num_evaluations(self) -> int:
        epochs, every = self.suite.epochs, self.suite.evaluation.every
        return epochs // every + 1 + (1 if epochs % every else 0)

    def totals(self) -> Totals:
        """What the run spends from its first epoch to its last evaluation."""
        epoch, epochs = self.epoch_cost(), self.suite.epochs
        return Totals(
            reward_queries=self.suite.budget.reward_queries_per_epoch * epochs,
            training_forwards=epoch.forwards * epochs,
            training_backwards=epoch.backwards * epochs,
            evaluation_forwards=self.evaluation_forwards() * self.num_evaluations() + self.offset_forwards() * epochs,
        )

    def missing_files(self) -> list[Need]:
        """The files that must be there before the run can start, and are not."""
        return [need for need in self.needs() if need.source.find() is None]

    def open(self, beside: Plan | None = None) -> Plan:
        """Opens the prompt sets; an ``InputError`` lists every missing file, or says which prompts do not fit.

        Args:
            beside: another algorithm's plan on the same suite, whose prompts are then not read again.
        """
        absent = self.missing_files()
        if absent:
            raise InputError(missing(absent, command_line_name(self.suite)))
        for part in self.places().values():
            part.check()
        check_components(self.suite, self)
        prompts = beside.prompts if beside else {name: part.make() for name, part in self.prompt_sets.items()}
        epoch_prompts(prompts["train"], self.prompts_per_epoch, epoch=0, seed=self.seed)
        if beside:
            evaluation_prompts = beside.evaluation_prompts
        else:
            evaluation_prompts = choose_prompts(self.suite, prompts, self.model.cls.reading(self.model.config))
        check_prompts(self, prompts, evaluation_prompts)
        return Plan(**vars(self), prompts=prompts, evaluation_prompts=evaluation_prompts)


@dataclass(frozen=True)
class Plan(Outline):
    """A valid run of one algorithm on a suite, with everything it needs.

    Attributes:
        prompts: the prompt sets by name, opened.
        evaluation_prompts: each evaluation set's prompts.
    """

    prompts: dict[str, PromptSet]
    evaluation_prompts: dict[str, list[str]]


def make_plan(suite: Suite, label: str, seed: int) -> Plan:
    """Checks that ``label`` can run on ``suite``; an ``InputError`` says what does not fit and what to change."""
    return make_outline(suite, label, seed).open()


def make_outline(suite: Suite, label: str, seed: int) -> Outline:
    """The same, as far as it can be told without opening a file."""
    _check_names(label, seed)
    _check_known(suite, label)
    settings = suite.settings_for(label)
    algorithm = find_component("algorithms", PluginRef(name=settings.algorithm or label, **settings.config))
    components = suite_components(suite)
    check_sampler(suite.sampler)
    size = (
        suite.prompts_per_epoch(label),
        settings.images_per_prompt,
        _objective_steps(components.model, suite, label),
    )
    check_algorithm(algorithm, label, settings, *size)
    check_training_sampler(algorithm, components, label)
    check_reward_heads(algorithm, components, label)
    _check_installed(suite.compute.trackers)
    return Outline(
        **vars(components),
        label=label,
        seed=seed,
        settings=settings,
        algorithm=algorithm,
        prompts_per_epoch=size[0],
    )


def outlines(suite: Suite) -> list[Outline]:
    """The runs that the suite lists; of one that lists none, those of every algorithm whose defaults fit it."""
    if suite.algorithms:
        return [make_outline(suite, label, seed=0) for label in suite.algorithms]
    found = []
    for label in registry.names("algorithms"):
        with suppress(InputError):
            found.append(make_outline(suite, label, seed=0))
    return found


def command_line_name(suite: Suite) -> str:
    """What a command takes as the suite: its name, if it ships with rfbench, else some file's."""
    return suite.name if suite.name in suite_names() else "SUITE.toml"


def _check_known(suite: Suite, label: str) -> None:
    """An ``InputError`` where ``label`` is neither a table of the suite nor an installed algorithm."""
    installed = registry.names("algorithms")
    if label in suite.algorithms or label in installed:
        return
    tables = f"; {suite.name} has {', '.join(suite.algorithms)}" if suite.algorithms else ""
    raise InputError(
        f"unknown algorithm {label!r}{did_you_mean(label, [*installed, *suite.algorithms])}{tables}; "
        f"installed: {', '.join(installed)}"
    )


def _check_names(label: str, seed: int) -> None:
    """What names the run's folder beside the suite, which has checked its own name."""
    try:
        check_name(label)
    except ValueError as error:
        raise InputError(f"the algorithm {error}") from None
    if seed < 0:
        raise InputError(f"the seed is {seed}; seeds are 0 or more")


def _objective_steps(model: Component, suite: Suite, label: str) -> int:
    own, sampler = suite.settings_for(label).sampler, suite.training_sampler(label)
    try:
        steps = _chain_steps(model, sampler)
    except InputError as error:
        raise InputError(f"algorithms.{label}.sampler: {error}" if own else str(error)) from None
    if own is None or own.window is None:
        return steps
    if own.window.size > steps:
        raise InputError(
            f"algorithms.{label}.sampler.window.size is {own.window.size}, but {steps} steps of its chain of "
            f"{sampler.num_steps} carry a gradient; use {steps} or fewer"
        )
    return own.window.size


def _chain_steps(model: Component, sampler: Sampler) -> int:
    """Counted on the chain itself; where no file tells the model's noise levels yet, on one that ends without noise."""
    process = model.cls.read_process(model.config) or _assumed(sampler.num_steps)
    return len(process.chain(sampler).objective_steps)


def _calls(sampler: Sampler) -> int:
    """Latents through the denoiser for one prediction."""
    return 2 if sampler.guidance_scale != 1 else 1


def _assumed(num_steps: int) -> Process:
    training_steps = max(num_steps, 1000)
    return Diffusion(torch.linspace(1, 0, training_steps + 2, dtype=torch.float64)[1:-1])


def _check_installed(trackers: TrackerSettings) -> None:
    for package, on in {"tensorboard": trackers.tensorboard, "wandb": trackers.wandb != "off"}.items():
        if on and find_spec(package) is None:
            raise InputError(
                f"compute.trackers.{package} is on, but {package} is not installed; `pip install 'rfbench[track]'`, "
                "or turn it off"
            )
