"""The arrows between rooms: imports run one way, there is no circle, and no folder overflows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "rfbench"
LEVELS = (  # a room may import those of the lines above; of its own line, what NEIGHBOURS says
    ("errors",),
    ("files", "installed", "names"),
    ("suite",),
    ("records", "hub"),
    ("core",),
    ("plugins",),
    ("planning",),
    ("models", "rewards", "prompts", "worlds"),
    ("running",),
    ("inference",),
    ("report",),
    ("sweeps", "doctor", "testing"),
    ("api",),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
LATE = {"cli", "api", ""}  # the command line and the front door import late, for speed
NEIGHBOURS = {("worlds", "models")}  # (who, whom)
MOST_FILES = 15


def modules() -> dict[str, Path]:
    """Every module of rfbench, by its dotted name."""
    return {
        ".".join(("rfbench", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in sorted(ROOT.rglob("*.py"))
    }


MODULES = modules()


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """The modules of rfbench that one imports, wherever in it, and whether late: inside a function.

    Relative, deferred and type-only imports are read too. ``from package import name`` is an import of ``name`` where
    that is a module, and of the package else.
    """
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    late = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names = [name if (name := f"{base}.{alias.name}") in MODULES else base for alias in node.names]
        for name in names:
            if name in MODULES and name != module:
                yield name, node in late


def room(module: str) -> str:
    """The folder (or file) right below rfbench that holds a module; of the package itself, nothing."""
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_its_level() -> None:
    assert {room(name) for name in MODULES} - {""} == set(LEVEL)


@pytest.mark.parametrize("name", sorted(LEVEL))
def test_no_room_imports_from_above(name: str) -> None:
    upward = sorted(
        f"{module} imports {target}"
        for module in MODULES
        if room(module) == name
        for target, late in imports(module)
        if room(target) not in ("", name)
        and LEVEL[room(target)] >= LEVEL[name]
        and (name, room(target)) not in NEIGHBOURS
        and not (late and name in LATE)
    )
    assert upward == []


def test_reading_results_needs_no_room_that_computes() -> None:
    allowed = {"report", "records", "errors", "files", "installed", "names", "suite", ""}
    assert [
        f"{module} imports {target}"
        for module in MODULES
        if room(module) == "report"
        for target, _ in imports(module)
        if room(target) not in allowed
    ] == []


def test_no_circle() -> None:
    """Module by module, late imports of the command line and the front door aside."""
    arrows = {
        module: {target for target, late in imports(module) if not (late and room(module) in LATE)}
        for module in MODULES
    }
    state: dict[str, str] = {}
    circles: list[str] = []

    def visit(module: str, path: tuple[str, ...]) -> None:
        state[module] = "open"
        for target in sorted(arrows[module]):
            if state.get(target) == "open":
                circles.append(" -> ".join((*path[path.index(target) :], target)))
            elif target not in state:
                visit(target, (*path, target))
        state[module] = "closed"

    for module in MODULES:
        if module not in state:
            visit(module, (module,))
    assert circles == []


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES.values()}), ids=lambda p: p.name)
def test_no_folder_overflows(folder: Path) -> None:
    files = sorted(path.name for path in folder.glob("*.py"))
    assert len(files) <= MOST_FILES, files


def test_an_arrow_upward_is_seen_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deferred, type-only and relative imports, and a module named as an attribute of its package."""
    forms = {
        "def late():\n    from rfbench.report import load\n": ("rfbench.report.load", True),
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rfbench.core.policy import Policy\n": (
            "rfbench.core.policy",
            False,
        ),
        "from ..core import rollout\n": ("rfbench.core.rollout", False),
        "from . import settings\n": ("rfbench.suite.settings", False),
        "import rfbench.cli.app\n": ("rfbench.cli.app", False),
    }
    for number, (text, found) in enumerate(forms.items()):
        path = tmp_path / f"form{number}.py"
        path.write_text(text)
        monkeypatch.setitem(MODULES, "rfbench.suite.form", path)
        assert list(imports("rfbench.suite.form")) == [found]


def test_the_wheel_holds_every_package() -> None:
    text = (ROOT.parent / "pyproject.toml").read_text(encoding="utf-8")
    packages = text[text.index("packages = [") : text.index("[tool.setuptools.package-dir]")]
    there = {".".join(path.parent.relative_to(ROOT.parent).parts) for path in ROOT.rglob("*.py")}
    assert there <= set(re.findall(r'"(rfbench[\w.]*)"', packages))
