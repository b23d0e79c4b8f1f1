"""What `rfbench new` writes works as it is: each package passes its own tests, found through its own entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rfbench.cli.scaffold import KINDS, new_package
from rfbench.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def install(package: Path) -> None:
    """What pip leaves of an editable package: its entry points, beside its modules."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = package / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))


@pytest.mark.slow
def test_every_new_package_passes_its_own_tests(tmp_path: Path) -> None:
    """Of the conformance suites that two of them bring, the quick checks."""
    packages = [tmp_path / kind for kind in KINDS]
    for kind, package in zip(KINDS, packages, strict=True):
        assert new_package(kind, f"my-{kind}", package)
        install(package)
    chosen = "not (resumes or chunk or optimum_gaussian or runs_on or budget)"
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, tmp_path],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, packages)), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "11 passed" in found.stdout  # 2 of the algorithm, 2 each of reward, prompts and model, 3 of the suite


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write a new 'rewards' .did you mean 'reward'.*; it is one of algor"):
        new_package("rewards", "mine", tmp_path / "mine")
    with pytest.raises(InputError, match="a suite 'tiny-shapes' is installed already"):
        new_package("suite", "tiny-shapes", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
