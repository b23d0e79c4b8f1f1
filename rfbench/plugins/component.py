"""A plugin's class with its validated settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rfbench.plugins import registry
from rfbench.suite.suite import Plugin


@dataclass(frozen=True)
class Part:
    """A plugin's class and its validated ``Config``, not yet made."""

    name: str
    part: Any
    config: Any

    def make(self, *arguments: Any) -> Any:
        return self.part(self.config, *arguments)

    def check(self) -> None:
        """Raises an ``InputError`` where what is here cannot be used, without loading it."""
        self.part.check(self.config)


def find_part(kind: str, plugin: Plugin) -> Part:
    """One plugin, found and configured."""
    part = registry.find(kind, plugin.name)
    return Part(plugin.name, part, registry.configure(kind, plugin.name, part.Config, plugin.options))
