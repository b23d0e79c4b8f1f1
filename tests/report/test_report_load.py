"""Damaged folders: whatever can be read is, and whatever cannot is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rfbench.errors import InputError
from rfbench.report import load
from tests.report.run_writer import write_lines, write_run


def test_a_sound_run_is_read_whole(tmp_path: Path) -> None:
    folder = write_run(tmp_path, held_out=[0.5, 0.6, 0.6, 0.7, 0.8], kl=[0, 1, 2, 3, 4])
    runs = load([tmp_path])
    assert runs.problems == ()
    assert runs.runs.row(0, named=True)["reward_queries"] == 128 * 20
    assert runs.runs["run"].to_list() == [str(folder)]
    assert runs.evals.height == 5 * 2 * 3
    assert set(runs.evals["measure"]) == {"preference", "gold", "kl"}
    assert runs.metrics["epoch"].to_list() == list(range(1, 21))
    final = runs.evals.filter(measure="preference", evaluation_set="seen", epoch=20).row(0, named=True)
    assert (final["mean"], final["denoiser_forwards"], final["optimizer_steps"]) == (5.0, 200, 40)
    assert final["per_prompt"] == pytest.approx([4.9, 5.0, 5.1])


def test_training_seconds_leave_evaluation_out(tmp_path: Path) -> None:
    write_run(tmp_path)
    seconds = load([tmp_path]).evals.filter(evaluation_set="seen").sort("epoch")["seconds"].to_list()
    assert seconds == [0.0, 25.0, 50.0, 75.0, 100.0]  # 2 s sample + 3 s update per epoch; 1 s evaluate not counted


def test_torn_and_garbage_lines_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    path = folder / "evals.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "hello", *lines[3:], '{"epoch": 25, "mea']))
    runs = load([tmp_path])
    assert runs.evals.height == 10
    messages = [str(problem) for problem in runs.problems]
    assert any("line 4 is broken" in m and str(path) in m for m in messages)
    assert any("line 12 is torn" in m for m in messages)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "null", '"8"', "true"])
def test_a_mean_that_is_no_number_is_left_out(tmp_path: Path, value: str) -> None:
    folder = write_run(tmp_path)
    path = folder / "evals.jsonl"
    path.write_text(path.read_text().replace('"mean": 3.0', f'"mean": {value}', 1))
    runs = load([tmp_path])
    assert runs.evals.height == 9
    assert "1 of 10 records lack a finite mean" in str(runs.problems[0])


def test_damage_in_one_run_leaves_the_others(tmp_path: Path) -> None:
    good = write_run(tmp_path, seed=0)
    for seed, content in enumerate([b"", b"[]", b"{}", b'{"suite": 3}', b"\xff\xfe"], 1):
        (write_run(tmp_path, seed=seed) / "run.json").write_bytes(content)
    runs = load([tmp_path])
    assert runs.runs["run"].to_list() == [str(good)]
    assert len(runs.problems) == 5
    assert all("this run is left out" in str(problem) for problem in runs.problems)


def test_missing_files_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (folder / "evals.jsonl").unlink()
    (folder / "metrics.jsonl").unlink()
    runs = load([tmp_path])
    assert runs.evals.is_empty()
    assert {Path(problem.path).name for problem in runs.problems} == {"evals.jsonl", "metrics.jsonl"}


def test_a_record_written_twice_counts_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    path = folder / "evals.jsonl"
    again = json.loads(path.read_text().splitlines()[-2]) | {"mean": 7.0}
    path.write_text(path.read_text() + json.dumps(again) + "\n")
    runs = load([tmp_path])
    assert runs.evals.filter(evaluation_set="seen", epoch=20)["mean"].to_list() == [7.0]
    assert "1 evaluations are written twice" in str(runs.problems[0])


def test_overlapping_folders_read_a_run_once(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert load([tmp_path, tmp_path / "toy"]).runs.height == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        load([tmp_path / "nowhere"])


def test_a_run_reads_the_same_beside_any_other(tmp_path: Path) -> None:
    """Files are read many at once, but each by its own format, with its own damage."""
    folders = [write_run(tmp_path, seed=seed) for seed in range(6)]
    for name, old, new in (("evals", "evaluation_set", "prompts"), ("metrics", "denoiser_", "unet_")):
        torn, blank, former, unended, fewer = (folder / f"{name}.jsonl" for folder in folders[1:])
        torn.write_text(torn.read_text()[:-20])
        blank.write_text("\n" + blank.read_text())
        former.write_text(former.read_text().replace(old, new))
        unended.write_text(unended.read_text().rstrip())
        fewer.write_text(fewer.read_text().partition("\n")[2])
    (folders[0] / "metrics.jsonl").write_text('{"epoch": 1, "sample_seconds": 3, "note": "by hand"}\n')
    together = load([tmp_path])
    alone = [load([folder]) for folder in folders]
    assert together.evals.equals(pl.concat([runs.evals for runs in alone]))
    metrics = pl.concat([runs.metrics for runs in alone], how="diagonal_relaxed")
    assert together.metrics.select(sorted(metrics.columns)).equals(metrics.select(sorted(metrics.columns)))
    assert together.problems == tuple(problem for runs in alone for problem in runs.problems)
    assert [problem.path for problem in together.problems] == [
        str(folders[0] / "metrics.jsonl"),
        *(str(folders[1] / f"{name}.jsonl") for name in ("metrics", "evals", "metrics")),
    ]


def test_seconds_add_up_in_one_order_whatever_keys_a_line_lacks(tmp_path: Path) -> None:
    """polars gives the keys of unlike lines in any order, and a sum of floats has the digits of its order."""
    folder = write_run(tmp_path)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records: list[dict[str, Any]] = [
        json.loads(line) | {"sample_seconds": 0.1, "decode_seconds": 0.2} for line in lines
    ]
    write_lines(folder / "metrics.jsonl", [records[0] | {"extra_seconds": 1e-9}, *records[1:]])
    loaded = [load([tmp_path]) for _ in range(5)]
    assert all(runs.metrics.equals(loaded[0].metrics) for runs in loaded)
    assert all(runs.evals.equals(loaded[0].evals) for runs in loaded)
