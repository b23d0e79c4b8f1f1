"""What a user gets from `pip install .`: a wheel that works from any folder."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow  # wheels, an environment and runs in processes of their own


def build(source: Path, out: Path) -> Path:
    """The wheel of a source tree."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", out, source]
    subprocess.run(command, check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_suites_algorithms_and_weights(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if "dist-info" not in name}
    assert tops == {"rfbench", "rfbench_algorithms", "rfbench_benchmarks"}
    for needed in (
        "rfbench_benchmarks/suites/tiny-shapes.toml",
        "rfbench_algorithms/prdp.py",
        "rfbench/worlds/shapes/weights/pipeline/unet/diffusion_pytorch_model.safetensors",
        "rfbench/worlds/shapes/weights/flow/unet/diffusion_pytorch_model.safetensors",
        "rfbench/worlds/shapes/weights/reward/model.safetensors",
        "rfbench/worlds/shapes/weights/pipeline/SHA256SUMS",
        "rfbench/worlds/shapes/weights/reward/SHA256SUMS",
        "rfbench/cli/templates/algorithm/pyproject.toml.txt",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("rfbench_benchmarks/pages", "rfbench_benchmarks/cost"))]


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with nothing but the wheel (its dependencies are borrowed, rfbench itself is not)."""
    environment = tmp_path_factory.mktemp("install") / "environment"
    venv.create(environment, with_pip=True)
    subprocess.run([environment / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    # a path in a .pth file is not searched for .pth files itself, so an editable rfbench stays invisible
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site_packages / "borrowed.pth").write_text("\n".join(borrowed))
    return environment


SMALL = ("epochs=1", "budget.reward_queries_per_epoch=8", "evaluation.sets.seen.num_prompts=2",
         "evaluation.sets.unseen.num_prompts=2", "sampler.num_steps=3", "sampler.skip_last_steps=1",
         "compute.device=cpu")  # fmt: skip
SMALLER = [part for setting in SMALL for part in ("--set", setting)]


def test_the_wheel_runs_in_an_empty_environment(environment: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [environment / "bin" / "python", "-c", "import rfbench; print(rfbench.__file__)"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(environment)
    rfbench = environment / "bin" / "rfbench"
    command = [rfbench, "run", "prdp", "--suite", "tiny-shapes", *SMALLER]
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    result = subprocess.run(
        [rfbench, "compare", "results", "--figures"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "prdp" in result.stdout
    assert (tmp_path / "results" / "comparison" / "comparison.svg").exists()


def test_a_new_algorithm_is_three_commands_away(environment: Path, tmp_path: Path) -> None:
    """Written, installed and run by name in the new environment; and it passes its own test."""

    def call(*command: str | Path) -> str:
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    binaries = environment / "bin"
    assert "pip install -e my-method" in call(binaries / "rfbench", "new", "algorithm", "my-method")
    built = build(tmp_path / "my-method", tmp_path / "wheels")
    call(binaries / "python", "-m", "pip", "install", "-q", "--no-deps", built)
    assert "finished" in call(binaries / "rfbench", "run", "my-method", "--suite", "tiny-shapes", *SMALLER)
    record = json.loads((tmp_path / "results" / "tiny-shapes" / "my-method" / "seed-0" / "run.json").read_text())
    assert record["plugins"]["algorithm"]["origin"] == "rfbench-my-method 0.1.0"
    assert "2 passed" in call(binaries / "python", "-m", "pytest", "-q", "-k", "gaussian or budget", "my-method")
