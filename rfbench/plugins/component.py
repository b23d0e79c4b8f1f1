"""A plugin's class with its validated settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rfbench.plugins import registry
from rfbench.suite.suite import PluginRef


@dataclass(frozen=True)
class Component:
    """A plugin's class and its validated ``Config``, not yet made."""

    name: str
    cls: Any
    config: Any

    def make(self, *arguments: Any) -> Any:
        return self.cls(self.config, *arguments)

    def check(self) -> None:
        """Raises an ``InputError`` where what is here cannot be used, without loading it."""
        self.cls.check(self.config)


def find_component(kind: str, plugin: PluginRef) -> Component:
    """One plugin, found and configured."""
    cls = registry.find(kind, plugin.name)
    return Component(plugin.name, cls, registry.configure(kind, plugin.name, cls.Config, plugin.options))
