"""Everything about a run that can be checked and counted before any weights load."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from rfbench import plugins
from rfbench.algorithm import Cost
from rfbench.errors import InputError
from rfbench.prompts.base import PromptSet, epoch_prompts
from rfbench.prompts.evaluated import choose_prompts
from rfbench.suite import AlgorithmSettings, Plugin, Suite, TrackerSettings


@dataclass(frozen=True)
class Part:
    """A plugin's class and its validated ``Config``, not yet made."""

    name: str
    part: Any
    config: Any

    def make(self, *arguments: Any) -> Any:
        return self.part(self.config, *arguments)


@dataclass(frozen=True)
class Plan:
    """A valid run of one algorithm on a suite.

    Attributes:
        label: the algorithm's table in the suite.
        prompts: the prompt sets by name, opened.
        evaluation_prompts: each evaluation set's prompts.
        prompts_per_epoch: groups per epoch; times ``settings.images_per_prompt`` it is the budget.
    """

    suite: Suite
    label: str
    seed: int
    settings: AlgorithmSettings
    algorithm: Part
    model: Part
    reward: Part
    held_out_rewards: list[Part]
    prompts: dict[str, PromptSet]
    evaluation_prompts: dict[str, list[str]]
    prompts_per_epoch: int

    @property
    def plugin_names(self) -> dict[str, str]:
        """The plugins that make the run, by kind."""
        return {"algorithm": self.algorithm.name, "model": self.model.name, "reward": self.reward.name}

    @property
    def objective_steps(self) -> int:
        """Denoising steps that carry a gradient: neither skipped, nor DDPM's last step, which has no noise."""
        sampler = self.suite.sampler
        deterministic = 1 if sampler.kind == "ddpm" else 0
        return sampler.num_steps - max(sampler.skip_last_steps, deterministic)

    def epoch_cost(self) -> Cost:
        """Latents through the denoiser in one epoch, sampling and reference included."""
        images = self.suite.budget.reward_queries_per_epoch
        steps, settings, capabilities = self.objective_steps, self.settings, self.algorithm.part.capabilities
        update = self.algorithm.make().cost(self.prompts_per_epoch, settings.images_per_prompt, steps)
        # sampling gives the log-probs of who samples; those of the other, where they are needed, cost a pass
        offline = settings.sample_from == "reference"
        other = capabilities.trajectories if offline else capabilities.reference_log_probs
        sampling = images * (self.suite.sampler.num_steps + (steps if other else 0))
        calls = 2 if self.suite.sampler.guidance_scale != 1 else 1
        update_calls = calls if update.guided else 1
        return Cost(calls * sampling + update_calls * update.forwards, update_calls * update.backwards)

    def evaluation_forwards(self) -> int:
        """Latents through the denoiser in one evaluation: sampling, and the reference for the KL."""
        images = sum(s.num_prompts * s.images_per_prompt for s in self.suite.evaluation.sets.values())
        calls = 2 if self.suite.sampler.guidance_scale != 1 else 1
        return calls * images * (self.suite.sampler.num_steps + self.objective_steps)

    def num_evaluations(self) -> int:
        epochs, every = self.suite.epochs, self.suite.evaluation.every
        return epochs // every + 1 + (1 if epochs % every else 0)


def make_plan(suite: Suite, label: str, seed: int) -> Plan:
    """Checks that ``label`` can run on ``suite``; an ``InputError`` says what does not fit and what to change."""
    settings = suite.settings_for(label)
    name = settings.algorithm or label
    algorithm = _part("algorithms", Plugin(name=name, **settings.config))
    _check_capabilities(algorithm, label, settings)
    _check_installed(suite.compute.trackers)
    prompts_per_epoch = suite.prompts_per_epoch(label)
    prompts = {key: _part("prompts", plugin).make() for key, plugin in suite.prompts.items()}
    epoch_prompts(prompts["train"], prompts_per_epoch, epoch=0, seed=seed)
    return Plan(
        suite=suite,
        label=label,
        seed=seed,
        settings=settings,
        algorithm=algorithm,
        model=_part("models", suite.model),
        reward=_part("rewards", suite.reward),
        held_out_rewards=[_part("rewards", plugin) for plugin in suite.evaluation.held_out_rewards],
        prompts=prompts,
        evaluation_prompts=choose_prompts(suite, prompts),
        prompts_per_epoch=prompts_per_epoch,
    )


def _part(kind: str, plugin: Plugin) -> Part:
    part = plugins.find(kind, plugin.name)
    return Part(plugin.name, part, plugins.configure(kind, plugin.name, part.Config, plugin.options))


def _check_capabilities(algorithm: Part, label: str, settings: AlgorithmSettings) -> None:
    needed = algorithm.part.capabilities.min_images_per_prompt
    if settings.images_per_prompt < needed:
        raise InputError(
            f"{label} needs at least {needed} images per prompt, but images_per_prompt is "
            f"{settings.images_per_prompt}; use --set algorithms.{label}.images_per_prompt={needed} or more"
        )
    if settings.sample_from == "reference" and not algorithm.part.capabilities.off_policy:
        raise InputError(
            f"{label}: sample_from is 'reference', but {algorithm.name} is defined only for samples of the policy "
            f"itself; use --set algorithms.{label}.sample_from=policy"
        )


def _check_installed(trackers: TrackerSettings) -> None:
    for package, on in {"tensorboard": trackers.tensorboard, "wandb": trackers.wandb != "off"}.items():
        if on and find_spec(package) is None:
            raise InputError(
                f"compute.trackers.{package} is on, but {package} is not installed; `pip install 'rfbench[track]'`, "
                "or turn it off"
            )
