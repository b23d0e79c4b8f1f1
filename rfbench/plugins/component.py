"""A plugin's class with its validated settings."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rfbench.errors import InterfaceError
from rfbench.hub.sources import Source, Sourced
from rfbench.plugins import registry
from rfbench.records.format import PluginRecord
from rfbench.suite.suite import PluginRef


@dataclass(frozen=True)
class Component:
    """A plugin's class and its validated ``Config``, not yet made.

    What it tells of itself includes the plugins inside it, such as the terms of a weighted sum.
    """

    kind: str
    name: str
    cls: Any
    config: Any

    def make(self, *arguments: Any) -> Any:
        try:
            inspect.signature(self.cls).bind(self.config, *arguments)
        except TypeError as error:
            raise InterfaceError(
                f"the {self.kind.removesuffix('s')} {self.name!r} cannot be made: {self.cls.__name__} is given its "
                f"config{' and a device' if arguments else ''}, and its __init__ has {error}"
            ) from None
        return self.cls(self.config, *arguments)

    def check(self) -> None:
        """Raises an ``InputError`` where what is here cannot be used, without loading it."""
        for inner in self._inner().values():
            inner.check()
        self.cls.check(self.config)

    def parts(self) -> list[Component]:
        """Itself and the plugins inside it, at any depth."""
        return [self, *(part for inner in self._inner().values() for part in inner.parts())]

    def leaves(self) -> list[Component]:
        """The plugins inside it that hold no other; itself where it holds none."""
        return [part for part in self.parts() if not part._inner()]

    def remarks(self) -> list[str]:
        """What reading the files corrected."""
        own: list[str] = self.cls.remarks(self.config)
        return [*own, *(remark for inner in self._inner().values() for remark in inner.remarks())]

    def resolved(self) -> dict[str, Any]:
        """Its table in a suite, every default filled in."""
        table = {"name": self.name} | self.config.model_dump(mode="json")
        for setting, inner in self._inner().items():
            place: Any = table
            for part in setting.split("."):
                place = place[int(part)] if isinstance(place, list) else place[part]
            place |= inner.resolved()
        return table

    def sources(self) -> list[Source]:
        """The published files that it reads."""
        inner = [
            replace(source, setting=f"{setting}.{source.setting}")
            for setting, component in self._inner().items()
            for source in component.sources()
        ]
        return [*self.cls.sources(self.config), *inner]

    def inputs(self, where: str) -> dict[str, list[Path]]:
        """The user's own files that it reads, by the place of their setting in the suite."""
        found = {f"{where}.{setting}": paths for setting, paths in self.cls.inputs(self.config).items()}
        for setting, component in self._inner().items():
            found |= component.inputs(f"{where}.{setting}")
        return found

    def plugins(self, where: str) -> dict[str, PluginRecord]:
        """Which code it is, by its place in the suite."""
        found = {where: registry.record(self.kind, self.name)}
        for setting, component in self._inner().items():
            found |= component.plugins(f"{where}.{setting}")
        return found

    def _inner(self) -> dict[str, Component]:
        return self.cls.components(self.config) if issubclass(self.cls, Sourced) else {}


def find_component(kind: str, plugin: PluginRef) -> Component:
    """One plugin, found and configured."""
    cls = registry.find(kind, plugin.name)
    return Component(kind, plugin.name, cls, registry.configure(kind, plugin.name, cls.Config, plugin.options))
