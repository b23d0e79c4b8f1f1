"""One tiny pipeline folder of each family."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.pipelines import FAMILIES


class Folders(dict[str, Path]):
    """Each family's, made when a test first asks for it."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory

    def __missing__(self, family: str) -> Path:
        self[family] = FAMILIES[family](self._factory.mktemp(family))
        return self[family]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return Folders(tmp_path_factory)
