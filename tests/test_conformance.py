"""The conformance suite on every registered algorithm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rfbench.plugins import registry
from rfbench.testing.conformance import CHECKS

pytestmark = pytest.mark.slow

SMALLER = {  # than the tables of tiny-shapes, which are for 128 images an epoch
    "dpok": ["updates_per_epoch=2", "batch_size=16", "value_updates_per_epoch=4", "value_batch_size=64"],
    "rwr": ["passes=2", "batch_size=16"],
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("algorithm", registry.names("algorithms"))
def test_conformance(algorithm: str, check: Callable[..., None], tmp_path: Path) -> None:
    check(algorithm, tmp_path, [f"algorithms.{algorithm}.config.{field}" for field in SMALLER.get(algorithm, ())])
