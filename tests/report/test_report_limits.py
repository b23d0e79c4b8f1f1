"""Axes that a collapsed run cannot squash, and that cut off no winner."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from rfbench.report import analyse
from rfbench.report.render.limits import Limits, of_curves, of_estimates
from tests.report.run_writer import write_run


def limits(role: str = "training", **curves: list[float]) -> Limits:
    rows = [
        {"variant": name, "role": role, "epoch": epoch, "gain": gain, "gain_low": gain - 0.1, "gain_high": gain + 0.1}
        for name, values in curves.items()
        for epoch, gain in enumerate(values)
    ]
    return of_curves(pl.DataFrame(rows))


def test_one_that_falls_far_below_the_rest_leaves_the_axis() -> None:
    found = limits(a=[0.0, 0.5, 1.0], b=[0.0, 0.2, 0.4], c=[0.0, -30.0, -60.0])
    assert found.outside == ("c",)
    assert (found.low, found.high) == pytest.approx((-0.16, 1.16))  # the bands of a and b, and a margin
    assert found.whole[0] < -60


def test_each_of_a_ladder_of_collapses_leaves_it() -> None:
    assert limits(a=[0.0, 1.0], b=[0.0, 0.5], c=[0.0, -10.0], d=[0.0, -100.0]).outside == ("c", "d")


def test_one_that_falls_only_somewhat_stays() -> None:
    assert limits(a=[0.0, 1.0], b=[0.0, 0.5], c=[0.0, -0.9]).outside == ()


def test_of_two_curves_the_lower_one_is_cut_off_only_where_it_collapses() -> None:
    assert limits(a=[0.0, 0.08], b=[0.0, -0.25]).outside == ()
    assert limits(a=[0.0, 0.08], b=[0.0, -2.5]).outside == ("b",)


def test_a_winner_far_above_the_rest_is_never_cut_off() -> None:
    found = limits(a=[0.0, 100.0], b=[0.0, 0.5], c=[0.0, 0.4])
    assert found.outside == ()
    assert found.high > 100


def test_a_divergence_that_explodes_leaves_the_axis_upwards() -> None:
    assert limits("diagnostic", a=[0.0, 100.0], b=[0.0, 120.0], c=[0.0, 2000.0]).outside == ("c",)


def test_no_more_than_half_of_the_curves_leave() -> None:
    assert limits(a=[0.0, 1.0], b=[0.0, -50.0], c=[0.0, -60.0]).outside == ()


def test_curves_that_do_not_move_still_have_an_axis() -> None:
    found = limits(a=[0.0, 0.0], b=[0.0, 0.0])
    assert found.low < 0 < found.high


def test_estimates_follow_the_same_rule(tmp_path: Path) -> None:
    for name, final in (("a", 2.0), ("b", 1.5), ("c", -80.0)):
        for seed in range(3):
            write_run(tmp_path, name, seed, [1.0, final + 0.01 * seed])
    gains = analyse([tmp_path]).estimates.filter(measure="preference", evaluation_set="seen", statistic="gain")
    found = of_estimates(gains)
    assert found.outside == ("c",)
    assert found.low < 0 < 1.01 < found.high < 2
