"""The statistics over seeds, from folders to frames."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rfbench.report import analyse
from tests.report.run_writer import write_run


def test_thresholds_are_half_way_to_the_best_algorithm(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, [0.0, 2.0, 6.0, 8.0])  # half-way is 4: half between epochs 5 and 10
    write_run(tmp_path, "ddpo", 0, [0.0, 3.0, 1.0, 2.0])
    frame = analyse([tmp_path]).stability.filter(evaluation_set="seen")
    rows = {row["variant"]: row for row in frame.iter_rows(named=True)}
    assert rows["prdp"]["threshold"] == rows["ddpo"]["threshold"] == 4.0
    assert rows["prdp"]["queries_to_threshold"] == pytest.approx(640 + 320)
    assert rows["prdp"]["seconds_to_threshold"] == pytest.approx(25 + 12.5)
    assert rows["ddpo"]["queries_to_threshold"] is None


def test_no_threshold_where_nobody_gains(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, [1.0, 2.0, 0.5])
    frame = analyse([tmp_path]).stability
    assert frame["threshold"].null_count() == frame.height


def test_collapse_is_a_share_of_seeds_with_an_interval(tmp_path: Path) -> None:
    for seed, curve in enumerate([[1.0, 3.0, 0.0], [1.0, 3.0, 3.0], [1.0, 3.0, 2.9]]):
        write_run(tmp_path, "ddpo", seed, curve)
    estimates = analyse([tmp_path]).estimates
    row = estimates.filter(evaluation_set="seen", statistic="collapsed").row(0, named=True)
    assert (row["estimate"], row["seeds"]) == (pytest.approx(1 / 3), 3)
    assert 0.0 < row["low"] < 1 / 3 < row["high"] < 1.0


def test_a_difference_larger_than_its_noise_excludes_zero(tmp_path: Path) -> None:
    for seed in range(5):
        write_run(tmp_path, "prdp", seed, [1.0, 3.0 + 0.1 * seed])
        write_run(tmp_path, "ddpo", seed, [1.0, 2.0 + 0.1 * seed])
        write_run(tmp_path, "dpok", seed, [1.0, 2.02 + 0.1 * seed])
    pairs = analyse([tmp_path]).pairs.filter(evaluation_set="seen")
    found = {(row["variant"], row["other"]): row for row in pairs.iter_rows(named=True)}
    assert found.keys() == {("prdp", "ddpo"), ("prdp", "dpok"), ("dpok", "ddpo")}
    clear, noise = found["prdp", "ddpo"], found["dpok", "ddpo"]
    assert clear["difference"] == pytest.approx(1.0)
    assert clear["low"] > 0
    assert clear["probability"] == 1.0
    assert noise["low"] < 0 < noise["high"]


def test_prompts_widen_the_interval(tmp_path: Path) -> None:
    for seed in range(5):
        write_run(tmp_path / "narrow", "prdp", seed, [1.0, 3.0 + 0.01 * seed], per_prompt=[0.0, 0.0, 0.0])
        write_run(tmp_path / "wide", "prdp", seed, [1.0, 3.0 + 0.01 * seed], per_prompt=[-1.0, 0.0, 1.0])
    narrow, wide = (
        analyse([tmp_path / name]).estimates.filter(evaluation_set="seen", statistic="final").row(0, named=True)
        for name in ("narrow", "wide")
    )
    assert narrow["estimate"] == pytest.approx(wide["estimate"])
    assert wide["high"] - wide["low"] > 5 * (narrow["high"] - narrow["low"])


def test_runs_without_means_per_prompt_still_have_intervals_over_seeds(tmp_path: Path) -> None:
    path = write_run(tmp_path, "prdp", 0) / "evals.jsonl"
    path.write_text(re.sub(r', "per_prompt": [^]]*]', "", path.read_text()))
    write_run(tmp_path, "prdp", 1, [1.0, 2.0, 3.0, 4.0, 6.0])
    row = analyse([tmp_path]).estimates.filter(statistic="final").row(0, named=True)
    assert row["estimate"] == 5.5
    assert row["low"] is not None


def test_a_drop_is_never_estimated_below_zero(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "prdp", seed, [1.0, 3.0, 3.0 - 0.01 * seed])
    estimates = analyse([tmp_path]).estimates.filter(statistic="drawdown")
    assert estimates["low"].to_list() == [0.0, 0.0]
