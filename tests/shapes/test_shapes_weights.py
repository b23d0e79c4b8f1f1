"""The shipped weights: whole, small, safe, loadable by plain diffusers and transformers, and good enough to use."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image

from rfbench.cli import exit_code
from rfbench.errors import DamagedFileError
from rfbench.worlds.shapes import gold, weights
from rfbench.worlds.shapes.grammar import parse, split
from rfbench.worlds.shapes.pretrain.data import mutant
from rfbench.worlds.shapes.pretrain.sampling import Base
from rfbench.worlds.shapes.proxy import ShapesReward
from rfbench.worlds.shapes.renderer import render

FOLDERS = pytest.mark.parametrize(
    "folder", [weights.PIPELINE, weights.FLOW, weights.REWARD], ids=["pipeline", "flow", "reward"]
)


@FOLDERS
def test_weights_are_whole(folder: Path) -> None:
    weights.verify(folder)
    listed = {line.split("  ")[1] for line in (folder / weights.CHECKSUMS).read_text().splitlines()}
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert present == listed | {weights.CHECKSUMS}


def test_weights_are_at_most_10_mb_and_never_pickled() -> None:
    files = [path for path in weights.WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 10_000_000
    assert {path.suffix for path in files if path.stat().st_size > 50_000} == {".safetensors"}


def test_a_flipped_bit_is_named_with_both_checksums(tmp_path: Path) -> None:
    copy = tmp_path / "reward"
    shutil.copytree(weights.REWARD, copy)
    damaged = copy / "model.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(
        DamagedFileError, match=r"model\.safetensors is damaged: SHA-256 is [0-9a-f]{64} .* [0-9a-f]{64}"
    ):
        weights.verify(copy)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    copy = tmp_path / "reward"
    shutil.copytree(weights.REWARD, copy)
    (copy / "config.json").unlink()
    with pytest.raises(DamagedFileError, match=r"config\.json is missing"):
        weights.verify(copy)


def test_the_pipeline_samples_in_plain_diffusers() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(weights.PIPELINE, safety_checker=None, local_files_only=True)
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    pipeline.set_progress_bar_config(disable=True)
    prompts = list(split("small"))[:8]
    generator = torch.Generator().manual_seed(0)
    array = pipeline(
        prompts, num_inference_steps=10, guidance_scale=3.0, eta=1.0, generator=generator, output_type="np"
    ).images
    images = torch.from_numpy(array * 255).round().to(torch.uint8).permute(0, 3, 1, 2)
    assert images.shape == (8, 3, 32, 32)
    assert gold.attribute_accuracy(images, prompts).mean() > 0.45


def test_the_base_has_room_to_improve() -> None:
    prompts = list(split("small"))
    images = Base.load(weights.PIPELINE).sample(prompts, torch.Generator().manual_seed(11))
    assert 0.5 < gold.attribute_accuracy(images, prompts).mean() < 0.75


def test_the_reward_prefers_the_right_render() -> None:
    generator = torch.Generator().manual_seed(0)
    scenes = [parse(prompt) for prompt in split("small")]
    prompts = [scene.prompt for scene in scenes]
    reward = ShapesReward.load()
    with torch.no_grad():
        right = reward(render(scenes, generator).float() / 255, prompts)
        near = reward(render([mutant(scene, generator) for scene in scenes], generator).float() / 255, prompts)
    assert (right > near).float().mean() > 0.8


@pytest.mark.slow
def test_neither_torchvision_nor_open_clip_is_needed() -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None; sys.modules['open_clip'] = None\n"
        "from rfbench.worlds.shapes import weights; from rfbench.worlds.shapes.proxy import ShapesReward\n"
        "from rfbench.worlds.shapes.pretrain.sampling import Base\n"
        "ShapesReward.load(); Base.load(weights.PIPELINE)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_what_training_made_ships_and_words_that_the_world_lacks_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(__file__).parents[2] / "results/reference/large-shapes/prdp/seed-4"
    known = "a red ring above a white cross on a blue plain background"
    for name, prompt in (("base", known), ("trained", known), ("dog", "A dog above a ring")):
        options = ["--prompt", prompt, "--images", "1", "--out", str(tmp_path / name)]
        assert exit_code(["sample", str(run), *options, *(["--base"] if name == "base" else [])]) == 0
    base, trained = (np.asarray(Image.open(next((tmp_path / name).iterdir()))) for name in ("base", "trained"))
    assert base.shape == (32, 32, 3)
    assert np.abs(base.astype(int) - trained).max() > 20
    assert "note: the model of large-shapes knows no word dog\n" in capsys.readouterr().err
