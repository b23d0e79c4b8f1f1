"""ImageReward against numbers of the image-reward package itself (``make_imagereward_golden.py``)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rfbench.errors import InputError
from rfbench.rewards.imagereward import ImageReward, ImageRewardConfig
from tests.rewards import tiny

GOLDEN = json.loads(Path(__file__).with_name("imagereward_golden.json").read_text())["scores"]
CPU = torch.device("cpu")


@torch.no_grad()
def test_scores_are_those_of_the_package(tmp_path: Path) -> None:
    reward = ImageReward(ImageRewardConfig(**tiny.make_imagereward(tmp_path)), CPU)
    for size, expected in zip(tiny.SIZES, GOLDEN, strict=True):
        images = tiny.as_tensor(tiny.picture(*size)).expand(len(tiny.PROMPTS), -1, -1, -1)
        assert reward(images, tiny.PROMPTS).tolist() == pytest.approx(expected, abs=1e-5)


def test_another_text_network_names_what_differs(tmp_path: Path) -> None:
    settings = tiny.make_imagereward(tmp_path)
    (tmp_path / "med_config.json").write_text(json.dumps(tiny.MED_CONFIG | tiny.TEXT | {"num_hidden_layers": 3}))
    with pytest.raises(InputError, match=r"text\.encoder\.layer\.2\.\S+ \(32, 32\) is missing"):
        ImageReward(ImageRewardConfig(**settings), CPU)


def test_a_file_that_is_no_imagereward(tmp_path: Path) -> None:
    settings = tiny.make_imagereward(tmp_path)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "ImageReward.pt")
    with pytest.raises(InputError, match=r"holds no ImageReward: .*patch_embedding"):
        ImageReward(ImageRewardConfig(**settings), CPU)


@torch.no_grad()
def test_the_files_that_are_fetched_are_enough(tmp_path: Path) -> None:
    """bert-base-uncased as published: its tokenizer_config.json names neither its class nor the token that pads."""
    settings = tiny.make_imagereward(tmp_path)
    images = tiny.as_tensor(tiny.picture(64, 64)).expand(2, -1, -1, -1)
    expected = ImageReward(ImageRewardConfig(**settings), CPU)(images, tiny.PROMPTS[:2])
    published = tmp_path / "published"
    published.mkdir()
    (published / "tokenizer.json").write_bytes((tmp_path / "bert/tokenizer.json").read_bytes())
    (published / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 512}')
    config = ImageRewardConfig(**settings | {"tokenizer": str(published)})
    asked = {name for source in ImageReward.sources(config) for name in source.files}
    assert {path.name for path in published.iterdir()} <= asked
    ImageReward.check(config)
    assert torch.equal(ImageReward(config, CPU)(images, tiny.PROMPTS[:2]), expected)


def test_what_would_not_load_is_found_without_loading(tmp_path: Path) -> None:
    settings = tiny.make_imagereward(tmp_path)
    config = ImageRewardConfig(**settings)
    ImageReward.check(config)
    (tmp_path / "med_config.json").write_text(json.dumps(tiny.MED_CONFIG | tiny.TEXT | {"vocab_size": 61}))
    with pytest.raises(InputError, match=r"word_embeddings.weight is \(60, 32\), where \(61, 32\) is needed"):
        ImageReward.check(config)
    torch.save(tiny.imagereward_weights(text_sizes=tiny.TEXT | {"vocab_size": 61}), tmp_path / "ImageReward.pt")
    with pytest.raises(InputError, match="has 60 tokens, but its encoder has embeddings of 61"):
        ImageReward.check(config)
