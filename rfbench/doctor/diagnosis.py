"""The whole examination of a suite on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rfbench.core.prompts import epoch_prompts
from rfbench.doctor.files import FileSet, examine
from rfbench.doctor.libraries import Library, libraries
from rfbench.errors import InputError
from rfbench.hub.sources import Need
from rfbench.planning.chunk_size import settled_here
from rfbench.planning.compatibility import check_components, check_prompts
from rfbench.planning.device import Demand, Gpu, demand, device_problem, gpus
from rfbench.planning.evaluation_prompts import choose_prompts
from rfbench.planning.plan import Outline, make_outline
from rfbench.planning.suite_components import SuiteComponents, suite_components
from rfbench.plugins import registry
from rfbench.suite.suite import Suite


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        suite: with its chunk size as a number, where a run fits.
        unfit: parts that cannot be used though their files are here, by their place in the suite: why, and the cure.
        misfits: the suite's algorithms that cannot run on it, by their tables: why, and the cure.
        remarks: what reading the files corrected.
        outlines: the runs that the suite lists and that fit, a table of its algorithms each.
        gpus: those that torch sees.
        demand: what the first of the runs asks of a device; the others ask for about the same.
    """

    suite: Suite
    files: list[FileSet]
    libraries: list[Library]
    unfit: dict[str, str]
    misfits: dict[str, str]
    remarks: list[str]
    outlines: list[Outline]
    gpus: list[Gpu]
    demand: Demand | None

    @property
    def missing(self) -> list[Need]:
        """The file sets that are not here."""
        return [files.need for files in self.files if files.status == "missing"]

    @property
    def problems(self) -> list[str]:
        """What else keeps the suite from running, with its cure; of its algorithms, where none can run."""
        found = [problem for library in self.libraries for problem in library.problems]
        wrong = [files for files in self.files if files.status == "wrong"]
        found += [f"{files.need.setting}: {problem}" for files in wrong for problem in files.problems]
        found += [f"{where}: {problem}" for where, problem in self.unfit.items()]
        found += [] if self.outlines else list(dict.fromkeys(self.misfits.values()))
        device = device_problem(self.suite, self.demand, self.gpus)
        return [*found, device] if device else found

    @property
    def can_run(self) -> bool:
        return not self.missing and not self.problems


def diagnose(suite: Suite, *, checksum: bool = False) -> Diagnosis:
    """Looks at everything that can be told without loading weights or going online."""
    parts = suite_components(suite)
    files = [examine(need, checksum=checksum) for need in parts.needs()]
    runs, misfits = _runs(suite)
    unfit = _unfit(parts)
    if not unfit and not any(found.status == "missing" for found in files):
        unfit = _unfit_together(suite, parts, runs, misfits)
    first = settled_here(runs[0]) if runs and not unfit else None
    return Diagnosis(
        suite=first.suite if first else suite,
        files=files,
        libraries=libraries(),
        unfit=unfit,
        misfits=misfits,
        remarks=[] if unfit else parts.remarks(),
        outlines=[run for run in runs if run.label not in misfits],
        gpus=gpus(),
        demand=demand(first) if first else None,
    )


def _runs(suite: Suite) -> tuple[list[Outline], dict[str, str]]:
    """The runs that the suite lists, and why the others do not fit it; of one that lists none, of every algorithm."""
    runs, misfits = [], {}
    for label in suite.algorithms or registry.names("algorithms"):
        try:
            runs.append(make_outline(suite, label, seed=0))
        except InputError as error:
            misfits[label] = str(error)
    return runs, misfits if suite.algorithms or not runs else {}


def _unfit(parts: SuiteComponents) -> dict[str, str]:
    """What each part says of itself."""
    found: dict[str, str] = {}
    for where, part in parts.places().items():
        with _noting(found, where):
            part.check()
    return found


def _unfit_together(
    suite: Suite, parts: SuiteComponents, runs: list[Outline], misfits: dict[str, str]
) -> dict[str, str]:
    """What does not go together, as the beginning of a run would find it: adds to ``misfits``, and returns the rest."""
    found: dict[str, str] = {}
    prompts = {}
    with _noting(found, "suite"):
        check_components(suite, parts)
    for name, part in parts.prompt_sets.items():
        with _noting(found, f"prompts.{name}"):
            prompts[name] = part.make()
    if len(prompts) < len(parts.prompt_sets):
        return found
    with _noting(found, "prompts"):
        evaluated = choose_prompts(suite, prompts, parts.model.cls.reading(parts.model.config))
        check_prompts(parts, prompts, evaluated)
    for run in runs:
        with _noting(misfits, run.label):
            epoch_prompts(prompts["train"], run.prompts_per_epoch, epoch=0, seed=run.seed)
    return found


@contextmanager
def _noting(found: dict[str, str], where: str) -> Iterator[None]:
    """Notes an ``InputError`` under ``where`` instead of raising it."""
    try:
        yield
    except InputError as error:
        found[where] = str(error)
