"""The stored curves: this code still does the science that it did."""

from __future__ import annotations

import pytest

from rfbench.inference.verify import deviations
from tests.golden import curves as golden

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("label", golden.ALGORITHMS)
def test_the_first_epochs_follow_the_stored_curves(label: str) -> None:
    worst = golden.moved_most(label, golden.curves(label, golden.SHORT_EPOCHS))
    assert worst.tolerances < 1, worst


def test_another_learning_rate_is_noticed() -> None:
    hotter = ("algorithms.ddpo.optimizer.learning_rate=1.5e-4",)
    found = golden.curves("ddpo", golden.SHORT_EPOCHS, hotter)
    assert golden.moved_most("ddpo", found).tolerances > 2


def test_a_quantity_that_is_gone_is_noticed() -> None:
    assert deviations({"reward_mean": [1.0]}, {})[0].tolerances > 1
