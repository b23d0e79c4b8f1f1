"""`rfbench sample` and `rfbench export`, as a user calls them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from rfbench.cli import exit_code
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Suite
from tests import tiny


def run_of(suite: Suite, out: Path, **changes: object) -> Path:
    return train(tiny.plan(Suite.model_validate(suite.model_dump() | {"epochs": 1} | changes)), out, Quiet())


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.iterdir())}


def test_sample_writes_the_images_that_the_seed_asks_for(
    suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(suite, tmp_path)

    def sample(name: str, *options: str) -> dict[str, np.ndarray]:
        prompts = ["--prompt", "a cat", "--prompt", "An ant, <b>&..//"]
        assert exit_code(["sample", str(run), *prompts, "--out", str(tmp_path / name), *options]) == 0
        return pictures(tmp_path / name)

    first = sample("first", "--images", "2")
    assert list(first) == ["00-a-cat-00.png", "00-a-cat-01.png", "01-an-ant-b-00.png", "01-an-ant-b-01.png"]
    assert all(image.shape == (16, 16, 3) for image in first.values())
    assert str(tmp_path / "first" / "01-an-ant-b-01.png") in capsys.readouterr().out.replace("\n", "")
    again, more, other = sample("again", "--images", "2"), sample("more"), sample("other", "--seed", "1")
    base = sample("base", "--base")
    for name, image in first.items():
        assert np.array_equal(image, again[name])
        assert np.abs(image.astype(int) - more[name]).max() <= 1  # four of each, in larger chunks
        assert np.abs(image.astype(int) - other[name]).max() > 20
        assert not np.array_equal(image, base[name])


def test_export_of_a_run_without_weights(suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = run_of(suite, tmp_path / "whole")
    compute = suite.compute.model_dump() | {"export": False}
    run = run_of(suite, tmp_path / "without", compute=compute)
    assert not (run / "weights").exists()
    assert exit_code(["export", str(run)]) == 0
    name = "unet/diffusion_pytorch_model.safetensors"
    ours, theirs = load_file(run / "weights" / name), load_file(whole / "weights" / name)
    assert all((ours[key] == theirs[key]).all() for key in theirs)
    assert ours.keys() == theirs.keys()
    shutil.rmtree(run / "weights")
    shutil.rmtree(run / "checkpoints")
    assert exit_code(["sample", str(run), "--prompt", "a cat"]) == 2
    assert "has neither a checkpoint nor weights" in capsys.readouterr().err
    assert exit_code(["export", str(tmp_path / "nowhere")]) == 2
    assert "is no run: it holds no run.json" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()
