"""A user's runs beside those that ship: shown together, told apart, never pooled unasked."""

from __future__ import annotations

from pathlib import Path

from rfbench.report import analyse
from tests.report.run_writer import SUITE, write_run

CURVE = (1.0, 2.0, 3.0, 4.0, 5.0)


def reference(results: Path) -> None:
    for seed in range(3):
        write_run(results / "reference", "prdp", seed, [value + seed / 10 for value in CURVE])
        write_run(results / "reference", "ddpo", seed, [value / 2 + seed / 10 for value in CURVE])


def test_a_users_seed_stands_beside_the_shipped_ones_and_changes_none_of_their_figures(tmp_path: Path) -> None:
    reference(tmp_path)
    before = analyse([tmp_path]).estimates
    write_run(tmp_path, "prdp", 0, [value * 3 for value in CURVE])  # later than the shipped seed 0
    found = analyse([tmp_path])
    assert set(found.estimates["variant"]) == {"prdp", "ddpo", "prdp (yours)"}
    after = found.estimates.filter(found.estimates["variant"] != "prdp (yours)")
    per_seed = after.filter(after["statistic"].is_in(["final", "gain", "best", "drawdown"]))
    assert per_seed.equals(before.filter(before["statistic"].is_in(["final", "gain", "best", "drawdown"])))
    assert found.estimates.filter(variant="prdp (yours)", statistic="final")["seeds"].to_list() == [1, 1]


def test_a_users_run_of_another_experiment_is_a_suite_of_its_own(tmp_path: Path) -> None:
    reference(tmp_path)
    before = analyse([tmp_path])
    write_run(tmp_path, "prdp", 0, [1.0, 9.0], suite=SUITE | {"epochs": 5})
    found = analyse([tmp_path])
    assert [verdict.suite for verdict in found.verdicts] == ["toy", "toy (yours)"]
    assert found.estimates.filter(suite="toy").equals(before.estimates)
    assert any("toy (yours) stands apart from the reference runs" in note for note in found.notes.summaries)
    assert any("epochs: 20 against 5" in note for note in found.notes.summaries)


def test_studies_take_part_where_they_are_named_and_are_mentioned_elsewhere(tmp_path: Path) -> None:
    reference(tmp_path)
    write_run(tmp_path / "studies" / "ladder", "rung", 0)
    write_run(tmp_path / "studies" / "ladder", "rung", 1)
    (tmp_path / "studies" / "former").mkdir()
    assert set(analyse([tmp_path / "reference"]).estimates["variant"]) == {"prdp", "ddpo"}
    assert set(analyse([tmp_path / "studies" / "ladder"]).estimates["variant"]) == {"rung"}
    assert set(analyse([tmp_path / "studies"]).estimates["variant"]) == {"rung"}
    everything = analyse([tmp_path])
    assert set(everything.estimates["variant"]) == {"prdp", "ddpo"}
    assert [note for note in everything.notes if "studies are" in note] == [
        f"left out: {tmp_path / 'studies'}: studies are compared by name (former, ladder), as in "
        f"`rfbench compare {tmp_path / 'studies' / 'former'}`"
    ]
    beside = analyse([tmp_path, tmp_path / "studies" / "ladder"])
    assert set(beside.estimates["variant"]) == {"prdp", "ddpo", "rung (studies/ladder)"}
    assert ["(former)" in note for note in beside.notes if "studies are compared" in note] == [True]


def test_a_suite_may_be_called_studies(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, suite=SUITE | {"name": "studies"})
    assert set(analyse([tmp_path]).estimates["suite"]) == {"studies"}
