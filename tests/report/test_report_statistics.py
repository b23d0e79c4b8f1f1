"""Each statistic against a curve small enough to check by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rfbench.report import load
from rfbench.report.analysis.statistics import curve_statistics, stability
from tests.report.run_writer import write_run


def statistics(values: list[float], error: float = 0.0) -> dict[str, float | int | None]:
    epochs = np.arange(len(values), dtype=np.float64) * 5
    return curve_statistics(epochs, 128 * epochs, np.array(values), np.full(len(values), error))


def test_a_curve_that_rises_and_falls() -> None:
    result = statistics([1.0, 3.0, 5.0, 2.0, 0.0, 0.5])
    assert result["start"] == 1.0
    assert (result["best"], result["best_epoch"]) == (5.0, 10)
    assert (result["final"], result["gain"]) == (0.5, -0.5)
    assert (result["drawdown"], result["drawdown_share"]) == (5.0, 1.25)  # 5 -> 0, after a gain of 4
    assert result["area"] == pytest.approx((0 / 2 + 2 + 4 + 1 - 1 - 0.5 / 2) / 5)
    assert result["epochs_below_base"] == 10
    assert result["volatility"] == pytest.approx(np.std([2, 2, -3, -2, 0.5], ddof=1))
    assert result["collapse_epoch"] == 15  # 2 is below 1 + 4/2 and nothing later is above it


def test_a_steady_climb_has_no_volatility_and_no_drawdown() -> None:
    result = statistics([1.0, 2.0, 3.0, 4.0])
    assert result["volatility"] == pytest.approx(0.0)
    assert (result["drawdown"], result["collapse_epoch"], result["epochs_below_base"]) == (0.0, None, 0)
    assert result["area"] == pytest.approx(1.5)


def test_a_dip_that_recovers_is_no_collapse() -> None:
    result = statistics([0.0, 4.0, 0.5, 4.5])
    assert result["collapse_epoch"] is None
    assert result["drawdown"] == 3.5


def test_a_run_that_only_falls_collapses_when_it_leaves_the_base_for_good() -> None:
    assert statistics([1.0, 0.9, 0.8, 0.5], error=0.05)["collapse_epoch"] == 10  # 0.9 is within 3 standard errors
    assert statistics([1.0, 0.9, 0.8, 0.5], error=0.0)["collapse_epoch"] == 5
    assert statistics([1.0, 0.9, 0.8])["drawdown_share"] is None


def test_noise_is_no_collapse() -> None:
    assert statistics([1.0, 1.02, 0.99, 0.98], error=0.02)["collapse_epoch"] is None


def test_a_missing_standard_error_counts_as_zero() -> None:
    assert statistics([1.0, 2.0, 1.0], error=float("nan"))["collapse_epoch"] == 10


def test_a_single_evaluation_has_no_area_and_no_volatility() -> None:
    result = statistics([1.0])
    assert (result["area"], result["volatility"], result["drawdown"]) == (None, None, 0.0)


def test_the_frame_has_a_row_per_run_and_prompt_set(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0)
    write_run(tmp_path, "ddpo", 1, [1.0, 0.0, 0.0])
    frame = stability(load([tmp_path]).evals)
    assert frame.select("variant", "seed", "evaluation_set", "collapse_epoch").rows() == [
        ("ddpo", 1, "seen", 5),
        ("ddpo", 1, "unseen", 5),
        ("prdp", 0, "seen", None),
        ("prdp", 0, "unseen", None),
    ]
