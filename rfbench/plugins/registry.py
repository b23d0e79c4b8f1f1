"""Look-up of algorithms, models, rewards and prompt sets: by entry point, or in a Python file for a quick try."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from rfbench.errors import InputError, did_you_mean
from rfbench.files import sha256, sha256_of_all
from rfbench.installed import entry_points
from rfbench.records.format import PluginRecord
from rfbench.suite.settings import describe

KINDS = ("algorithms", "models", "rewards", "prompts")
TABLES = {"models": "model", "rewards": "reward", "prompts": "prompts.train"}  # where a suite names one, for advice
_registered: dict[str, dict[str, type]] = {kind: {} for kind in KINDS}


def names(kind: str) -> list[str]:
    """The names known for a kind, without importing what is installed."""
    return sorted(_entries(kind).keys() | _registered[kind])


def find(kind: str, name: str) -> Any:
    """The class known as ``name``; an ``InputError`` says that it is unknown, broken, or of another kind."""
    if name in _registered[kind]:
        return _registered[kind][name]
    entries, singular = _entries(kind), kind.removesuffix("s")
    if name not in entries:
        known = names(kind)
        raise InputError(f"unknown {singular} {name!r}{did_you_mean(name, known)}; installed: {', '.join(known)}")
    _check_single(kind, name)
    try:
        found = entries[name].load()
    except (Exception, SystemExit) as error:
        raise InputError(
            f"the {singular} {name!r} ({entries[name].value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error
    base = _bases()[kind]
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"the {singular} {name!r} is {found!r}, not a subclass of {base.__name__}")
    return found


def register(kind: str, name: str, cls: type) -> None:
    """Makes a class known in this process as a plugin called ``name``, for a notebook or a test.

    It comes before an installed plugin of that name. Runs in other processes, such as a sweep's, do not know it: use a
    file and ``--plugin``, or an entry point.

    >>> import rfbench
    >>> from rfbench.core import Reward
    >>> class Redness(Reward):
    ...     "How much redder than the other channels an image is."
    ...     unit = "share"
    ...     version = "1"
    ...     def __call__(self, images, prompts):  # (n, 3, H, W), 8 bit
    ...         red, green, blue = (images / 255).mean(dim=(2, 3)).T
    ...         return red - (green + blue) / 2
    >>> rfbench.plugins.register("rewards", "redness", Redness)

    Args:
        kind: ``algorithms``, ``models``, ``rewards`` or ``prompts``.
        name: what suites and commands call it.
        cls: a subclass of the kind's interface in ``rfbench.core``.

    Raises:
        InputError: of an unknown kind, or a class that does not fill in the kind's interface.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}{did_you_mean(kind, KINDS)}; it is one of {', '.join(KINDS)}")
    base = _bases()[kind]
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise InputError(f"{name!r} is {cls!r}, not a subclass of {base.__name__}, which {kind} fill in")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__")))  # noqa: B009  # type checkers know none
        raise InputError(f"{name!r}: {cls.__name__} does not fill in {missing} of {base.__name__}")
    _registered[kind][name] = cls


def forget() -> None:
    """Makes every plugin unknown that a file or ``register`` brought."""
    for known in _registered.values():
        known.clear()


def add_file(path: Path) -> None:
    """Makes the plugins that are defined in a Python file known, each under its class's name in lower case.

    Words are joined by hyphens: a class ``BrightReward`` is found as ``bright-reward``, ``GRPO`` as ``grpo``.
    """
    module = _import(path)
    found = False
    for value in vars(module).values():
        if not inspect.isclass(value) or value.__module__ != module.__name__ or inspect.isabstract(value):
            continue
        for kind, base in _bases().items():
            if issubclass(value, base):
                name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", value.__name__).lower()
                if name in _entries(kind):
                    raise InputError(
                        f"{path} defines {value.__name__}, but {name!r} is among the installed {kind}; rename the class"
                    )
                other = _registered[kind].get(name)
                if other is not None and Path(inspect.getfile(other)).resolve() != path.resolve():
                    raise InputError(
                        f"{path} and {inspect.getfile(other)} both define a {kind.removesuffix('s')} {name!r}; give "
                        "one of them, or rename its class"
                    )
                _registered[kind][name] = value
                found = True
    if not found:
        bases = ", ".join(base.__name__ for base in _bases().values())
        raise InputError(f"{path} defines no plugin: no class in it fills in one of {bases}")


def record(kind: str, name: str) -> PluginRecord:
    """Where a plugin comes from, and the checksum of its code where it is not rfbench's own."""
    cls = find(kind, name)
    if name in _registered[kind]:
        try:
            path = Path(inspect.getfile(cls))
        except (TypeError, OSError):  # of a notebook or a prompt
            return PluginRecord(name=name, origin=f"{cls.__module__}.{cls.__qualname__}, of no file", sha256=None)
        return PluginRecord(name=name, origin=path.name, sha256=sha256(path))
    distribution = _entries(kind)[name].dist
    origin = f"{distribution.name} {distribution.version}" if distribution else cls.__module__
    own = distribution is not None and distribution.name == __name__.partition(".")[0]
    return PluginRecord(name=name, origin=origin, sha256=None if own else sha256_of_all(_code(cls)))


def _code(cls: type) -> list[Path]:
    """The Python files of the package that a class is part of."""
    package = sys.modules[cls.__module__.partition(".")[0]]
    folders = [Path(folder) for folder in getattr(package, "__path__", ())]
    return [file for folder in folders for file in folder.rglob("*.py")] or [Path(inspect.getfile(cls))]


def configure(kind: str, name: str, config: type[BaseModel], options: dict[str, Any]) -> Any:
    """``options`` validated by a plugin's ``Config``; an ``InputError`` names the key and the nearest field."""
    try:
        return config.model_validate(options)
    except ValidationError as error:
        said = f"settings of the {kind.removesuffix('s')} {name!r}:\n{describe(error, config)}"
        if kind in TABLES and any(problem["type"] == "extra_forbidden" for problem in error.errors()):
            said += (
                f"\n  where the table was another plugin's, set it whole: --set '{TABLES[kind]}={{name=\"{name}\"}}'"
            )
        raise InputError(said) from None


def _entries(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(f"rfbench.{kind}")}


def _check_single(kind: str, name: str) -> None:
    """An ``InputError`` where several installed packages bring a plugin of this name: none may win by chance."""
    entries = [entry for entry in entry_points(f"rfbench.{kind}") if entry.name == name]
    packages = {e.dist.name: f"{e.dist.name} {e.dist.version} ({e.value})" for e in entries if e.dist is not None}
    if len(packages) > 1:
        others = [package for package in packages if package != "rfbench"]
        raise InputError(
            f"several installed packages bring the {kind.removesuffix('s')} {name!r}: "
            f"{' and '.join(packages[package] for package in sorted(packages))}. To choose one, "
            f"`pip uninstall {others[0]}` or rename its entry point; its class can also be tried under its own name "
            "with --plugin FILE.py"
        )


def _bases() -> dict[str, type]:
    from rfbench.core.algorithm import Algorithm
    from rfbench.core.model import Model
    from rfbench.core.prompts import PromptSet
    from rfbench.core.reward import Reward

    return dict(zip(KINDS, (Algorithm, Model, Reward, PromptSet), strict=True))


def _import(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"there is no plugin file {path}")
    unique = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]  # files of one name in several folders
    spec = importlib.util.spec_from_file_location(f"rfbench_plugin_{path.stem}_{unique}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"the plugin {path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic looks annotations up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f" line {lines[-1]}" if lines else ""
        raise InputError(f"the plugin {path}{where} cannot be imported: {type(error).__name__}: {error}") from error
    return module
