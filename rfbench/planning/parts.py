"""What a suite is made of: plugins with their validated settings, before any of their files is opened."""

from __future__ import annotations

from dataclasses import dataclass

from rfbench.hub.sources import Need
from rfbench.plugins.component import Part, find_part
from rfbench.suite.suite import Suite


@dataclass(frozen=True)
class SuiteParts:
    """The plugins that a suite names."""

    model: Part
    reward: Part
    held_out_rewards: list[Part]
    prompt_sets: dict[str, Part]

    def needs(self) -> list[Need]:
        """The published files that the parts read, each at its place in the suite."""
        return [
            Need(where, source) for where, part in self.places().items() for source in part.part.sources(part.config)
        ]

    def places(self) -> dict[str, Part]:
        """The parts by their tables in the suite, as ``--set`` calls them."""
        places = {"model": self.model, "reward": self.reward}
        places |= {f"evaluation.held_out_rewards.{i}": part for i, part in enumerate(self.held_out_rewards)}
        return places | {f"prompts.{name}": part for name, part in self.prompt_sets.items()}


def suite_parts(suite: Suite) -> SuiteParts:
    """The suite's plugins, found and configured; an ``InputError`` names a wrong setting."""
    return SuiteParts(
        model=find_part("models", suite.model),
        reward=find_part("rewards", suite.reward),
        held_out_rewards=[find_part("rewards", plugin) for plugin in suite.evaluation.held_out_rewards],
        prompt_sets={name: find_part("prompts", plugin) for name, plugin in suite.prompts.items()},
    )
