"""The stored curves: this code still does the science that it did."""

from __future__ import annotations

import pytest

from tests.golden import curves as golden

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("label", golden.ALGORITHMS)
def test_the_first_epochs_follow_the_stored_curves(label: str) -> None:
    worst = golden.deviations(golden.stored_curves(label), golden.curves(label, golden.SHORT_EPOCHS))[0]
    assert worst["tolerances"] < 1, worst


def test_another_learning_rate_is_noticed() -> None:
    hotter = ("algorithms.ddpo.optimizer.learning_rate=1.5e-4",)
    found = golden.curves("ddpo", golden.SHORT_EPOCHS, hotter)
    assert golden.deviations(golden.stored_curves("ddpo"), found)[0]["tolerances"] > 2


def test_a_quantity_that_is_gone_is_noticed() -> None:
    assert golden.deviations({"reward_mean": [1.0]}, {})[0]["tolerances"] > 1
