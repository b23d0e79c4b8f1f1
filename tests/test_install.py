"""What a user gets from `pip install .`: a wheel that works from any folder."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    (built,) = out.glob("rfbench-*.whl")
    return built


def test_the_wheel_holds_suites_algorithms_and_weights(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if "dist-info" not in name}
    assert tops == {"rfbench", "rfbench_algorithms", "rfbench_benchmarks"}
    for needed in (
        "rfbench_benchmarks/suites/tiny-shapes.toml",
        "rfbench_algorithms/prdp.py",
        "rfbench/shapes/weights/pipeline/unet/diffusion_pytorch_model.safetensors",
        "rfbench/shapes/weights/reward/model.safetensors",
        "rfbench/shapes/weights/SHA256SUMS",
    ):
        assert needed in names


def test_the_wheel_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """A new environment with nothing but the wheel (its dependencies are borrowed, rfbench itself is not)."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    # a path in a .pth file is not searched for .pth files itself, so an editable rfbench stays invisible
    (site_packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
    where = subprocess.run(
        [python, "-c", "import rfbench; print(rfbench.__file__)"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(environment)
    rfbench = environment / "bin" / "rfbench"
    settings = ["epochs=1", "budget.reward_queries_per_epoch=8", "evaluation.sets.seen.num_prompts=2",
                "evaluation.sets.unseen.num_prompts=2", "compute.device=cpu"]  # fmt: skip
    overrides = [part for setting in settings for part in ("--set", setting)]
    command = [rfbench, "run", "prdp", "--suite", "tiny-shapes", *overrides]
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    result = subprocess.run([rfbench, "compare", "results"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "prdp" in result.stdout
    assert (tmp_path / "results" / "comparison" / "comparison.svg").exists()
