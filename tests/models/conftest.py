"""One tiny pipeline folder of each family."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.pipelines import FAMILIES


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in FAMILIES.items()}
