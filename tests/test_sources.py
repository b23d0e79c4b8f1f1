"""Published files: what counts as being there, and what a plan says of all that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfbench.cli import exit_code
from rfbench.errors import InputError
from rfbench.hub.sources import Source
from rfbench.suite.loading import load_suite
from tests.commands import said
from tests.hub import PLUGINS, SUITE


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A suite whose parts all read published files, none of which is here."""
    (tmp_path / "published.toml").write_text(SUITE)
    (tmp_path / "published_plugins.py").write_text(PLUGINS)
    return ["--suite", str(tmp_path / "published.toml"), "--plugin", str(tmp_path / "published_plugins.py")]


def test_a_run_names_everything_that_is_missing_and_what_to_type(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(["run", "prdp", *files, "--set", "prompts.train.path=/no/prompts.json"]) == 2
    message = said(capsys)
    assert "model.path: owner/model, from the hub, is not on this disk (4.3 GB)" in message
    assert "reward.path: reward.pt of owner/reward, from the hub, is not on this disk (3.9 GB)" in message
    assert "prompts.train.path: there is no file or folder /no/prompts.json" in message
    assert "To download (about 8.2 GB): rfbench fetch SUITE.toml" in message
    assert "--set model.path=PATH --set reward.path=PATH --set prompts.train.path=PATH" in message


def test_wrong_settings_are_told_before_missing_files(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["run", "prdp", *files, "--set", "algorithms.prdp.images_per_prompt=3"]) == 2
    assert "images_per_prompt 3 does not divide" in said(capsys)


def test_the_dry_run_counts_without_the_files(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    counts = ["--set", "sampler.num_steps=10", "--set", "sampler.guidance_scale=1.0", "--dry-run"]
    assert exit_code(["run", "rwr", *files, *counts]) == 0
    printed = said(capsys)
    assert "reward queries │ 8 " in printed
    # two evaluations of one prompt and two images: ten steps of sampling, and ten of the reference for the KL
    assert f"network forwards, evaluation │ {2 * 2 * (10 + 10)} " in printed
    assert "not measured: files are missing" in printed
    assert "model.path: owner/model" in printed


def test_a_local_folder_must_hold_the_files(tmp_path: Path) -> None:
    source = Source("path", str(tmp_path), ("unet/config.json", "unet/*.safetensors"))
    assert source.find() is None
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"model\.path: the folder .* has no unet/\*\.safetensors"):
        source.require("model")
    (tmp_path / "unet" / "a.safetensors").write_bytes(b"")
    assert source.require("model") == tmp_path
    assert [path.name for path in source.paths()] == ["a.safetensors", "config.json"]


def test_a_single_file_may_be_named_by_its_folder(tmp_path: Path) -> None:
    weights = tmp_path / "reward.pt"
    weights.write_bytes(b"")
    for path in (tmp_path, weights):
        assert Source("path", str(path), ("reward.pt",)).find() == weights
    several = Source("path", str(weights), ("config.json", "*.safetensors"))
    with pytest.raises(InputError, match=r"is a file, but a folder with config\.json"):
        several.require("reward")


def test_overrides_reach_into_lists() -> None:
    suite = load_suite("tiny-shapes", ["evaluation.held_out_rewards.0.name=jpeg-compressibility"])
    assert suite.evaluation.held_out_rewards[0].name == "jpeg-compressibility"
    with pytest.raises(InputError, match="'9' stands where a list has its places 0 to "):
        load_suite("tiny-shapes", ["evaluation.held_out_rewards.9.name=x"])
