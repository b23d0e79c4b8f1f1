"""Folders that rfbench cannot train are refused by their JSON, before a weight loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from huggingface_hub import constants

from rfbench.errors import InputError
from rfbench.hub.sources import forms
from rfbench.models import pipeline_folder
from rfbench.models.stable_diffusion import DEFAULT_PATH, FILES, StableDiffusion, StableDiffusionConfig
from rfbench.models.stable_diffusion_3 import StableDiffusion3, StableDiffusion3Config
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Suite
from tests import tiny
from tests.models import pipelines

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rename(file: Path, name: str) -> None:
    file.rename(file.with_name(name))


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "SD3": (
        lambda f: edit(f / "model_index.json", _class_name="StableDiffusion3Pipeline"),
        "holds a StableDiffusion3Pipeline .* which the model stable-diffusion does not train; use --set model.name=",
    ),
    "inpainting pipeline": (
        lambda f: edit(f / "model_index.json", _class_name="StableDiffusionInpaintPipeline"),
        "holds a StableDiffusionInpaintPipeline",
    ),
    "inpainting UNet": (
        lambda f: edit(f / "unet/config.json", in_channels=9),
        "the UNet takes 9 channels and gives 4, but a latent has 4: it is an inpainting",
    ),
    "other UNet": (
        lambda f: edit(f / "unet/config.json", _class_name="UNetMotionModel"),
        "the UNet is a UNetMotionModel",
    ),
    "XL's UNet in a 1.x pipeline": (
        lambda f: edit(f / "unet/config.json", addition_embed_type="text_time"),
        "addition_embed_type of the UNet is 'text_time', which does not fit a StableDiffusionPipeline",
    ),
    "predicts samples": (
        lambda f: edit(f / "scheduler/scheduler_config.json", prediction_type="sample"),
        "prediction_type is 'sample'; rfbench knows epsilon, v_prediction",
    ),
    "no config": (lambda f: (f / "vae/config.json").unlink(), "it has no vae/config.json"),
    "torn config": (lambda f: (f / "unet/config.json").write_text("{"), "unet/config.json is not valid JSON"),
    "pickled weights": (
        lambda f: rename(f / "unet" / pipeline_folder.MODEL, "diffusion_pytorch_model.bin"),
        r"there is no unet/diffusion_pytorch_model.safetensors; it has diffusion_pytorch_model.bin. .*pickle",
    ),
    "no encoder": (lambda f: (f / "text_encoder/model.safetensors").unlink(), "no text_encoder/model.safetensors"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_folder_that_cannot_be_trained(folders: dict[str, Path], tmp_path: Path, case: str) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(folders["sd1"], folder)
    spoil, message = BAD[case]
    spoil(folder)
    with pytest.raises(InputError, match=message):
        StableDiffusion(StableDiffusionConfig(path=str(folder)), torch.device("cpu"))


def test_resolution(folders: dict[str, Path]) -> None:
    folder = folders["sd1"]
    model = StableDiffusion(StableDiffusionConfig(path=str(folder), resolution=24), torch.device("cpu"))
    assert model.latent_shape == (4, 12, 12)
    assert model.decode(torch.zeros(1, 4, 12, 12)).shape == (1, 3, 24, 24)
    with pytest.raises(InputError, match=r"model.resolution is 25, but one latent of .* stands for 2 pixels"):
        StableDiffusion(StableDiffusionConfig(path=str(folder), resolution=25), torch.device("cpu"))


def test_what_the_hub_is_asked_for() -> None:
    """safetensors alone, at a commit for the default model, and at what the user says for another."""
    (source,) = StableDiffusion.sources(StableDiffusionConfig())
    assert (source.path, len(source.revision)) == (DEFAULT_PATH, 40)
    assert not any(name.endswith((".bin", ".ckpt")) or name in ("*", "unet/*") for name in source.files)
    assert "unet/diffusion_pytorch_model.safetensors" in source.files
    (other,) = StableDiffusion.sources(StableDiffusionConfig(path="owner/model"))
    assert other.revision == "main"
    (pinned,) = StableDiffusion.sources(StableDiffusionConfig(path="owner/model", revision="abc"))
    assert pinned.revision == "abc"


def in_hub_cache(folder: Path, cache: Path, *left_out: str, fetched: tuple[str, ...] = FILES) -> Path:
    """The files of ``folder`` that are ``fetched``, laid out as the hub's cache at ``COMMIT``; returns its snapshot."""
    repository = cache / "models--owner--model"
    patterns = [pattern for files in fetched for form in forms(files) for pattern in form]
    for file in (path for path in folder.rglob("*") if path.is_file()):
        name = str(file.relative_to(folder))
        if name not in left_out and any(fnmatch(name, pattern) for pattern in patterns):
            copy = repository / "snapshots" / COMMIT / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository / "snapshots" / COMMIT


@pytest.mark.parametrize("cache", ["cache", "snapshots/cache"])  # the second one's name says nothing of a commit
def test_a_sharded_repository_is_fetched_and_found(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(folders["sd1"], folder)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", max_shard_size="30KB")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / cache))
    snapshot = in_hub_cache(folder, tmp_path / cache)
    config = StableDiffusionConfig(path="owner/model")
    (source,) = StableDiffusion.sources(config)
    assert source.commit() == COMMIT
    StableDiffusion.check(config)
    loaded = StableDiffusion(config, torch.device("cpu")).denoiser.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in unet.state_dict().items())
    shards = sorted(snapshot.glob("unet/*-of-*"))
    assert set(shards) < set(source.paths())
    shards[0].unlink()  # a download that was ended
    assert source.find() is None
    assert "is not on this disk" in (source.complaint() or "")


@pytest.mark.parametrize(
    "left_out", [("tokenizer/tokenizer.json",), (f"unet/{pipeline_folder.MODEL}",), ("text_encoder/model.safetensors",)]
)
def test_a_cache_that_lacks_files_is_not_found(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_out: tuple[str, ...]
) -> None:
    """So that `rfbench fetch` brings them, where a local folder would be refused."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    in_hub_cache(folders["sd1"], tmp_path / "cache", *left_out)
    (source,) = StableDiffusion.sources(StableDiffusionConfig(path="owner/model"))
    assert source.find() is None
    with pytest.raises(InputError, match="rfbench fetch"):
        source.require("model")


@pytest.mark.parametrize("family", ["sd1", "xl", pytest.param("sd3", marks=pytest.mark.slow)])
def test_what_is_asked_for_is_enough_and_its_commit_is_recorded(
    folders: dict[str, Path], suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """A run from the hub's cache, which holds the files that match the patterns, and no others."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    fetched = StableDiffusion3.files(StableDiffusion3Config()) if family == "sd3" else FILES
    in_hub_cache(folders[family], tmp_path / "cache", fetched=fetched)
    changes: dict[str, Any] = {"epochs": 1, "model": pipelines.model(family, folders[family]) | {"path": "owner/model"}}
    changes |= {"sampler": {"kind": "flow-sde", "num_steps": 3}} if family == "sd3" else {}
    run = train(tiny.plan(Suite.model_validate(suite.model_dump() | changes)), tmp_path / "results", Quiet())
    record = json.loads((run / "run.json").read_text())
    assert record["files"]["model.path"] == f"owner/model@{COMMIT}"
