"""Published prompt sets, each one file of a data set on the hub, at a pinned revision.

Files, columns and revisions are those that the data sets' pages and public code name. Training splits hold a row per
comparison, so that most of their prompts occur several times: each counts once. Benchmarks are kept as published, so
that their means weigh prompts as the papers' do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from rfbench.hub.sources import Source
from rfbench.prompts.files import Duplicates, StoredPrompts
from rfbench.suite.settings import Settings


class Split(NamedTuple):
    """Where a split is, and how it is read."""

    repository: str
    revision: str
    file: str
    column: str
    duplicates: Duplicates
    gigabytes: float


class PublishedConfig(Settings):
    """Settings of a published prompt set."""

    path: str | None = Field(
        None,
        description="local file in any format of the prompt set `file`, folder laid out like the repository, or hub id;"
        " None: where it is published",
    )


class PublishedPrompts(StoredPrompts, ABC):
    """One split of a published data set."""

    Config: ClassVar[type[Settings]] = PublishedConfig

    def __init__(self, config: Any) -> None:
        split = self.split(config)
        (source,) = self.sources(config)
        super().__init__(source.require("prompts"), split.column, split.duplicates)

    @classmethod
    @abstractmethod
    def split(cls, config: Any) -> Split:
        """What the config asks for."""

    @classmethod
    def sources(cls, config: Any) -> list[Source]:
        split = cls.split(config)
        path = config.path or split.repository
        revision = split.revision if path == split.repository else "main"
        return [Source("path", path, (split.file,), revision, kind="dataset", gigabytes=split.gigabytes)]


class HPDv2Config(PublishedConfig):
    """Settings of HPDv2's prompts."""

    split: Literal["train", "animation", "concept-art", "painting", "photo"] = Field(
        "train", description="the training prompts, or one of the benchmark's four styles"
    )


def _hpdv2_style(name: str) -> Split:
    """800 prompts: a JSON list of strings."""
    revision = "b9517430f34b1080d4f741118d2a440155a165cd"
    return Split("zhwang/HPDv2", revision, f"benchmark/{name}.json", "prompt", "keep", 0.0001)


class HPDv2(PublishedPrompts):
    """Human Preference Dataset v2 (Wu et al. 2023): over 100,000 training prompts, 800 benchmark prompts per style.

    train.json is a JSON list of records {prompt, human_preference, file_path}, one per pair of images.
    """

    Config = HPDv2Config
    SPLITS: ClassVar[dict[str, Split]] = {
        "train": Split(
            "ymhao/HPDv2", "fd163b223b6faf112eccafeabe2e31a0e950f177", "train.json", "prompt", "drop", 0.116
        ),
        "animation": _hpdv2_style("anime"),
        "concept-art": _hpdv2_style("concept-art"),
        "painting": _hpdv2_style("paintings"),
        "photo": _hpdv2_style("photo"),
    }

    @classmethod
    def split(cls, config: HPDv2Config) -> Split:
        return cls.SPLITS[config.split]


class PickAPicConfig(PublishedConfig):
    """Settings of Pick-a-Pic's prompts."""

    split: Literal["train", "validation_unique", "test_unique"] = Field(
        "train", description="the training prompts, or 500 rows with a prompt each of the other splits"
    )


def _pick_a_pic(file: str, duplicates: Duplicates, gigabytes: float) -> Split:
    revision = "a3592a4f2e6adb7646ef56f3bb18e2968348a163"
    return Split("yuvalkirstain/pickapic_v1_no_images", revision, f"data/{file}", "caption", duplicates, gigabytes)


class PickAPic(PublishedPrompts):
    """Pick-a-Pic v1 (Kirstain et al. 2023), its copy without images: 583,747 training rows, 500 test prompts."""

    Config = PickAPicConfig
    SPLITS: ClassVar[dict[str, Split]] = {
        "train": _pick_a_pic("train-00000-of-00001-b138676ed2d1f52a.parquet", "drop", 0.168),
        "validation_unique": _pick_a_pic("validation_unique-00000-of-00001-847ed34b90bbafc3.parquet", "keep", 0.0001),
        "test_unique": _pick_a_pic("test_unique-00000-of-00001-73a51cbb6488571d.parquet", "keep", 0.0002),
    }

    @classmethod
    def split(cls, config: PickAPicConfig) -> Split:
        return cls.SPLITS[config.split]


class DrawBench(PublishedPrompts):
    """DrawBench (Saharia et al. 2022): 200 prompts in 11 categories, a CSV table with a column Prompts."""

    @classmethod
    def split(cls, config: PublishedConfig) -> Split:
        revision = "ad794cba698c253ffdb6d18eff3fc87b004c1135"
        return Split("sayakpaul/drawbench", revision, "DrawBench Prompts - Sheet1.csv", "Prompts", "keep", 0.0001)
