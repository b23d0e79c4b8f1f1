"""Fixtures that several rooms' tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rfbench.plugins import registry
from rfbench.suite.suite import Suite
from tests import tiny

torch.set_num_threads(1)  # the tests run in parallel processes


@pytest.fixture(autouse=True)
def _forget_plugin_files() -> Iterator[None]:
    """No test sees the plugins that another one added."""
    yield
    for known in registry._from_files.values():
        known.clear()


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion pipeline folder."""
    return tiny.make_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="session")
def prompt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("\n".join(tiny.PROMPTS), encoding="utf-8")
    return path


@pytest.fixture
def suite(pipeline: Path, prompt_file: Path) -> Suite:
    """A suite on the tiny pipeline that trains three epochs in a second."""
    return tiny.make_suite(pipeline, prompt_file)


@pytest.fixture
def suite_file(pipeline: Path, prompt_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(tiny.SUITE_FILE.format(pipeline=pipeline, prompts=prompt_file))
    return path
