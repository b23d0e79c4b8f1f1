"""The reference results that ship: complete, small, of clean code, and what the pages say of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rfbench_benchmarks import tables
from rfbench_benchmarks.collect import MEGABYTES, collect

from rfbench.suite import load_suite

ROOT = Path(__file__).parent.parent


def test_every_table_on_the_pages_is_what_compare_says() -> None:
    found = tables.headlines(tables.reference_runs())
    for name in tables.PAGES:
        page = (ROOT / name).read_text(encoding="utf-8")
        assert tables.BLOCK.search(page), name
        assert tables.filled(page, found) == page, f"{name}: run `python -m rfbench_benchmarks.tables`"


def test_every_reference_run_is_finished_of_clean_code_and_of_the_suite_as_it_is() -> None:
    runs = tables.reference_runs()
    assert runs
    for folder in runs:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        assert run["status"] == "finished", folder
        assert len(run["git_commit"]) == 40, folder  # no "-dirty"
        assert run["suite_hash"] == load_suite(run["suite"]["name"]).hash, folder


def test_collecting_takes_finished_runs_with_the_grids_of_seed_0(tmp_path: Path) -> None:
    for seed, status in ((0, "finished"), (1, "finished"), (2, "running")):
        folder = tmp_path / "swept" / "suite" / "prdp" / f"seed-{seed}"
        (folder / "samples").mkdir(parents=True)
        (folder / "checkpoints").mkdir()
        run = {"status": status, "seed": seed, "git_commit": "f" * 40}
        (folder / "run.json").write_text(json.dumps(run))
        names = [f"samples/epoch-{epoch:04d}-seen.png" for epoch in (0, 5, 10, 15, 20)]
        for name in ("metrics.jsonl", "evals.jsonl", "samples/index.json", *names):
            (folder / name).write_text("{}")
    collect(tmp_path / "swept", tmp_path / "results")
    found = sorted(
        str(p.relative_to(tmp_path / "results" / "suite" / "prdp")) for p in tmp_path.rglob("results/**/*.*")
    )
    records = ["evals.jsonl", "metrics.jsonl", "run.json"]
    grids = ["epoch-0000-seen.png", "epoch-0010-seen.png", "epoch-0020-seen.png", "index.json"]
    assert found == [
        *(f"seed-0/{name}" for name in (*records, *(f"samples/{grid}" for grid in grids))),
        *(f"seed-1/{name}" for name in records),
    ]


def test_collecting_refuses_runs_of_uncommitted_code(tmp_path: Path) -> None:
    folder = tmp_path / "swept" / "suite" / "prdp" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": "finished", "seed": 0, "git_commit": "f" * 40 + "-dirty"}))
    with pytest.raises(SystemExit, match="commit it, and run again"):
        collect(tmp_path / "swept", tmp_path / "results")


def test_the_reference_results_stay_small() -> None:
    files = [
        path for folder in tables.reference_runs() for path in folder.rglob("*") if "checkpoints" not in path.parts
    ]
    assert sum(path.stat().st_size for path in files if path.is_file()) < MEGABYTES * 1e6
