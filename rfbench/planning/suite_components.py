"""What a suite is made of: plugins with their validated settings, before any of their files is opened."""

from __future__ import annotations

from dataclasses import dataclass

from rfbench.hub.sources import Need
from rfbench.plugins.component import Component, find_component
from rfbench.suite.suite import Suite


@dataclass(frozen=True)
class SuiteComponents:
    """The plugins that a suite names."""

    model: Component
    reward: Component
    held_out_rewards: list[Component]
    prompt_sets: dict[str, Component]

    def needs(self) -> list[Need]:
        """The published files that the parts read, each at its place in the suite."""
        return [
            Need(where, source) for where, part in self.places().items() for source in part.cls.sources(part.config)
        ]

    def places(self) -> dict[str, Component]:
        """The parts by their tables in the suite, as ``--set`` calls them."""
        places = {"model": self.model, "reward": self.reward}
        places |= {f"evaluation.held_out_rewards.{i}": part for i, part in enumerate(self.held_out_rewards)}
        return places | {f"prompts.{name}": part for name, part in self.prompt_sets.items()}


def suite_components(suite: Suite) -> SuiteComponents:
    """The suite's plugins, found and configured; an ``InputError`` names a wrong setting."""
    return SuiteComponents(
        model=find_component("models", suite.model),
        reward=find_component("rewards", suite.reward),
        held_out_rewards=[find_component("rewards", plugin) for plugin in suite.evaluation.held_out_rewards],
        prompt_sets={name: find_component("prompts", plugin) for name, plugin in suite.prompts.items()},
    )
