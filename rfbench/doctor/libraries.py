"""Installed versions against what works: rfbench's own bounds, the libraries' bounds on each other, and known traps."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

# whose versions make each other work or fail
FAMILY = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "safetensors",
    "huggingface_hub",
    "open_clip_torch",
)


@dataclass(frozen=True)
class Library:
    """A package: its version (None: not installed), and what is wrong with it, with the cure."""

    name: str
    version: str | None
    problems: tuple[str, ...] = ()


def libraries() -> list[Library]:
    """The model libraries, and whatever else rfbench needs that is missing or of a wrong version."""
    needed = {requirement.name: requirement for requirement in _requirements("rfbench")}
    found = []
    for name in (*FAMILY, *(name for name in needed if name not in FAMILY)):
        installed = _installed(name)
        problems = [] if name not in needed else _unmet(needed[name], "rfbench")
        if installed and name in FAMILY:
            problems += [problem for other in _requirements(name) for problem in _unmet(other, f"{name} {installed}")]
        if name == "torchvision" and installed and (problem := _torchvision_problem()):
            problems.append(problem)
        if name == "accelerate" and installed and (problem := _launch_problem()):
            problems.append(problem)
        if problems or (installed and name in FAMILY):
            found.append(Library(name, installed, tuple(problems)))
    return found


def _requirements(package: str) -> list[Requirement]:
    """What a package needs on this Python, extras apart."""
    requirements = [Requirement(line) for line in requires(package) or []]
    return [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]


def _unmet(requirement: Requirement, needed_by: str) -> list[str]:
    """Why a requirement is not met, as a list of one; of the others' requirements only those on the family count."""
    if needed_by != "rfbench" and requirement.name.replace("-", "_") not in FAMILY:
        return []
    installed = _installed(requirement.name)
    if installed and requirement.specifier.contains(installed, prereleases=True):
        return []
    has = f"{installed} is installed" if installed else "it is not installed"
    wanted = f"{requirement.name}{requirement.specifier}"
    return [f"{needed_by} needs {wanted}, but {has}; pip install '{wanted}'"]


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _torchvision_problem() -> str | None:
    """A torchvision that does not load beside this torch takes transformers and diffusers down with it."""
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        return (
            f"torchvision cannot be imported ({type(error).__name__}: {error}): it must be of the same build as torch, "
            "both for the CPU or both for CUDA; reinstall both from one place, or `pip uninstall torchvision` (only "
            "the reward hpsv2 needs it)"
        )
    return None


def _launch_problem() -> str | None:
    """accelerate's own launcher runs one process on the CPU, however many its configuration asks for."""
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    try:
        config = load_config_from_file(None)
    except Exception:  # no configuration, or one that `accelerate launch` itself refuses
        return None
    processes = getattr(config, "num_processes", 1) or 1
    if not getattr(config, "use_cpu", False) or processes == 1:
        return None
    return (
        f"`accelerate launch` would run one process on the CPU, not the {processes} of {default_config_file}; use "
        f"`torchrun --standalone --nproc-per-node {processes} -m rfbench run ...`"
    )
