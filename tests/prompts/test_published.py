"""Published prompt sets, on tiny files laid out as their pages say; the real ones have not been read here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rfbench.core.prompts import PromptSet
from rfbench.errors import InputError
from rfbench.plugins import registry
from rfbench.prompts.animals import Animals, AnimalsConfig


def make(name: str, **options: Any) -> PromptSet:
    part = registry.find("prompts", name)
    return part(registry.configure("prompts", name, part.Config, options))


def sources(name: str, **options: Any) -> list[Any]:
    part = registry.find("prompts", name)
    return part.sources(registry.configure("prompts", name, part.Config, options))


def test_animals() -> None:
    bare = make("animals")
    assert (len(bare), len(set(bare)), bare[0], bare[44]) == (45, 45, "cat", "kangaroo")
    painted = Animals(AnimalsConfig(template="A painting of a {}"))
    assert painted[20] == "A painting of a ant"  # as the paper writes it
    with pytest.raises(InputError, match=r"template: must contain \{\} once, for the animal"):
        make("animals", template="A painting of an animal")


def test_hpdv2_training_prompts_count_once(tmp_path: Path) -> None:
    """One record per pair of images, so that a prompt has several."""
    pairs = [
        {"human_preference": [1, 0], "prompt": prompt, "file_path": [f"{i}.jpg", f"{i + 1}.jpg"]}
        for i, prompt in enumerate(["A boat.", "A boat.", "Two  cats", "two cats", "A hat."])
    ]
    (tmp_path / "train.json").write_text(json.dumps(pairs))
    for path in (tmp_path, tmp_path / "train.json"):
        train = make("hpdv2", path=str(path))
        assert (list(train), train.duplicates) == (["A boat.", "Two  cats", "A hat."], 2)


@pytest.mark.parametrize(
    ("split", "file"),
    [("animation", "anime"), ("concept-art", "concept-art"), ("painting", "paintings"), ("photo", "photo")],
)
def test_hpdv2_styles_are_kept_as_published(tmp_path: Path, split: str, file: str) -> None:
    path = tmp_path / "benchmark" / f"{file}.json"
    path.parent.mkdir()
    path.write_text(json.dumps(["a hat", "a boat", "A hat"]))
    assert list(make("hpdv2", split=split, path=str(tmp_path))) == ["a hat", "a boat", "A hat"]
    assert sources("hpdv2", split=split)[0].files == (f"benchmark/{file}.json",)


def test_pick_a_pic(tmp_path: Path) -> None:
    table = pl.DataFrame({"best_image_uid": ["u", "v", "w"], "caption": ["a hat", "a boat", "a hat "], "label_0": 1.0})
    table.write_parquet(tmp_path / "some.parquet")
    path = str(tmp_path / "some.parquet")
    assert list(make("pick-a-pic", path=path)) == ["a hat", "a boat"]
    assert list(make("pick-a-pic", split="test_unique", path=path)) == ["a hat", "a boat", "a hat"]


def test_drawbench(tmp_path: Path) -> None:
    path = tmp_path / "DrawBench Prompts - Sheet1.csv"
    path.write_text('Prompts,Category\nA red car.,Colors\n"Five cars, on the street.",Counting\n')
    assert list(make("drawbench", path=str(tmp_path))) == ["A red car.", "Five cars, on the street."]


@pytest.mark.parametrize(
    ("name", "options"),
    [("hpdv2", {}), ("hpdv2", {"split": "photo"}), ("pick-a-pic", {"split": "test_unique"}), ("drawbench", {})],
)
def test_published_files_are_pinned(name: str, options: dict[str, Any]) -> None:
    (source,) = sources(name, **options)
    assert source.kind == "dataset"
    assert not source.is_local
    assert len(source.revision) == 40
    assert sources(name, **options, path="mine/copy")[0].revision == "main"


def test_a_missing_file_is_said_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"prompts.path: there is no file or folder .*none\.json"):
        make("hpdv2", path=str(tmp_path / "none.json"))
    with pytest.raises(InputError, match=r"split: Input should be 'train', .* \(it is 'anime'\)"):
        make("hpdv2", split="anime")
