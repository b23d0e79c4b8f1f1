"""The whole examination of a suite on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from rfbench.doctor.device import Demand, Gpu, demand, device_problem, gpus
from rfbench.doctor.files import FileSet, examine
from rfbench.doctor.libraries import Library, libraries
from rfbench.errors import InputError
from rfbench.hub.sources import Need
from rfbench.planning.compatibility import check_components
from rfbench.planning.plan import Outline, outlines
from rfbench.planning.suite_components import SuiteComponents, suite_components
from rfbench.suite.suite import Suite


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        unfit: parts that cannot be used though their files are here, by their place in the suite: why, and the cure.
        outlines: the runs that the suite lists, a table of its algorithms each.
        gpus: those that torch sees.
        demand: what the first of the runs asks of a device; the others ask for about the same.
    """

    suite: Suite
    files: list[FileSet]
    libraries: list[Library]
    unfit: dict[str, str]
    outlines: list[Outline]
    gpus: list[Gpu]
    demand: Demand | None

    @property
    def missing(self) -> list[Need]:
        """The file sets that are not here."""
        return [files.need for files in self.files if files.status == "missing"]

    @property
    def problems(self) -> list[str]:
        """What else keeps the suite from running, with its cure."""
        found = [problem for library in self.libraries for problem in library.problems]
        wrong = [files for files in self.files if files.status == "wrong"]
        found += [f"{files.need.setting}: {problem}" for files in wrong for problem in files.problems]
        found += [f"{where}: {problem}" for where, problem in self.unfit.items()]
        device = device_problem(self.suite, self.demand, self.gpus)
        return [*found, device] if device else found

    @property
    def can_run(self) -> bool:
        return not self.missing and not self.problems


def diagnose(suite: Suite, *, checksum: bool = False) -> Diagnosis:
    """Looks at everything that can be told without loading weights or going online."""
    parts, runs = suite_components(suite), outlines(suite)
    return Diagnosis(
        suite=suite,
        files=[examine(need, checksum=checksum) for need in parts.needs()],
        libraries=libraries(),
        unfit=_unfit(suite, parts),
        outlines=runs,
        gpus=gpus(),
        demand=demand(runs[0]) if runs else None,
    )


def _unfit(suite: Suite, parts: SuiteComponents) -> dict[str, str]:
    found = {}
    for where, part in parts.places().items():
        try:
            part.check()
        except InputError as error:
            found[where] = str(error)
    if not found and all(need.source.find() for need in parts.needs()):
        try:
            check_components(suite, parts)
        except InputError as error:
            found["suite"] = str(error)
    return found
