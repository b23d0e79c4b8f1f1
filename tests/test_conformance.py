"""The conformance suite on every registered algorithm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rfbench.plugins import registry
from rfbench.testing.conformance import CHECKS

pytestmark = pytest.mark.slow

SMALLER = {"dpok": ["algorithms.dpok.config.batch_size=16", "algorithms.dpok.config.value_batch_size=64"]}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("algorithm", registry.names("algorithms"))
def test_conformance(algorithm: str, check: Callable[..., None], tmp_path: Path) -> None:
    check(algorithm, tmp_path, SMALLER.get(algorithm, ()))
