"""What a suite is made of: plugins with their validated settings, before any of their files is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfbench.hub.sources import Need
from rfbench.plugins.component import Component, find_component
from rfbench.records import identity
from rfbench.records.format import PluginRecord
from rfbench.suite.suite import Suite


@dataclass(frozen=True)
class SuiteComponents:
    """A suite and the plugins that it names, found and configured."""

    suite: Suite
    model: Component
    reward: Component
    held_out_rewards: list[Component]
    prompt_sets: dict[str, Component]

    def needs(self) -> list[Need]:
        """The published files that the parts read, each at its place in the suite."""
        return [Need(where, source) for where, part in self.places().items() for source in part.sources()]

    def inputs(self) -> dict[str, list[Path]]:
        """The user's own files that the suite names, by place."""
        return {name: paths for where, part in self.places().items() for name, paths in part.inputs(where).items()}

    def plugins(self) -> dict[str, PluginRecord]:
        """The code of the suite's plugins, by place."""
        return {name: record for where, part in self.places().items() for name, record in part.plugins(where).items()}

    def resolved(self) -> dict[str, Any]:
        """The suite as plain data with every default filled in, those of its plugins too; without its algorithms."""
        data = self.suite.model_dump(mode="json", exclude={"algorithms"})
        data["model"], data["reward"] = self.model.resolved(), self.reward.resolved()
        data["evaluation"]["held_out_rewards"] = [part.resolved() for part in self.held_out_rewards]
        data["prompts"] = {name: part.resolved() for name, part in self.prompt_sets.items()}
        return data

    @property
    def suite_hash(self) -> str:
        """Hash of what comparable runs share (`rfbench.records.identity`)."""
        return identity.suite_hash(self.resolved(), self.inputs())

    def remarks(self) -> list[str]:
        """What reading the parts' files corrected."""
        return [f"{where}: {remark}" for where, part in self.places().items() for remark in part.remarks()]

    def places(self) -> dict[str, Component]:
        """The parts by their tables in the suite, as ``--set`` calls them."""
        places = {"model": self.model} | self.rewards()
        return places | {f"prompts.{name}": part for name, part in self.prompt_sets.items()}

    def rewards(self) -> dict[str, Component]:
        """The training reward and the held-out ones, by their tables."""
        held_out = {f"evaluation.held_out_rewards.{i}": part for i, part in enumerate(self.held_out_rewards)}
        return {"reward": self.reward} | held_out


def suite_components(suite: Suite) -> SuiteComponents:
    """The suite's plugins, found and configured; an ``InputError`` names a wrong setting.

    What the suite leaves to the model is filled in.
    """
    model = find_component("models", suite.model)
    finetune = suite.finetune.model_copy(update={"target_modules": suite.finetune.modules(model.cls.lora_modules)})
    return SuiteComponents(
        suite=suite.model_copy(update={"finetune": finetune}),
        model=model,
        reward=find_component("rewards", suite.reward),
        held_out_rewards=[find_component("rewards", plugin) for plugin in suite.evaluation.held_out_rewards],
        prompt_sets={name: find_component("prompts", plugin) for name, plugin in suite.prompts.items()},
    )
