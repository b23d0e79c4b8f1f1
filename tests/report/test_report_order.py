"""What is found does not depend on names, order and number of folders, nor on which other methods lie beside them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest

from rfbench.report import Comparison, analyse, write
from rfbench_benchmarks.pages import tables
from tests.report.run_writer import write_run

FRAMES = ("table", "estimates", "contrasts", "pairs", "curves", "hacking", "seen_unseen", "paper", "stability")
RECORDS = ("run.json", "metrics.jsonl", "evals.jsonl")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference runs of PRDP, DDPO and offline PRDP, records alone, in a folder each."""
    root = tmp_path_factory.mktemp("shipped")
    for folder in tables.reference_runs():
        run = json.loads((folder / "run.json").read_text())
        variant = run["variant"]
        if variant in ("prdp", "ddpo", "prdp-offline"):
            copy(folder, root / run["suite"]["name"] / variant / f"seed-{run['seed']}")
    return root


def copy(folder: Path, to: Path) -> None:
    to.mkdir(parents=True)
    for name in RECORDS:
        shutil.copyfile(folder / name, to / name)


def csv(frame: pl.DataFrame) -> str:
    return frame.drop("run", strict=False).write_csv()


def everything(found: Comparison) -> dict[str, str]:
    return {name: csv(getattr(found, name)) for name in FRAMES} | {"verdicts": "\n".join(map(str, found.verdicts))}


def test_moved_renamed_and_split_records_give_the_same_bytes(shipped: Path, tmp_path: Path) -> None:
    folders = sorted(path.parent for path in shipped.rglob("run.json"))
    for number, folder in enumerate(reversed(folders)):  # the other way round, in two places, under other names
        copy(folder, tmp_path / ("b", "a")[number % 2] / f"{(number * 7) % len(folders):03d}")
    assert everything(analyse([tmp_path / "b", tmp_path / "a"])) == everything(analyse([shipped]))


def test_runs_are_seen_through_links_and_a_link_in_a_circle_ends(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for number, folder in enumerate(sorted(path.parent for path in shipped.rglob("run.json"))):
        os.symlink(folder, tmp_path / "runs" / f"{number:03d}", target_is_directory=True)
    os.symlink(tmp_path / "runs", tmp_path / "runs" / "again", target_is_directory=True)
    assert everything(analyse([tmp_path / "runs"])) == everything(analyse([shipped]))


def test_a_bad_method_beside_them_changes_no_byte_for_anyone_else(shipped: Path, tmp_path: Path) -> None:
    before = analyse([shipped])
    shutil.copytree(shipped, tmp_path / "runs")
    for path in sorted(shipped.rglob("prdp-offline/seed-*")):
        for name in ("awful", "zz-awful"):
            folder = tmp_path / "runs" / path.parent.parent.name / name / path.name
            copy(path, folder)
            run = json.loads((folder / "run.json").read_text())
            table = run["suite"]["algorithms"]
            run["suite"]["algorithms"] = {name: table.pop("prdp-offline")}
            run["variant"] = name
            (folder / "run.json").write_text(json.dumps(run))
            evals = [json.loads(line) for line in (folder / "evals.jsonl").read_text().splitlines()]
            for record in evals:
                if record["epoch"] and record["role"] == "training":
                    record["mean"] -= 100
                    record["per_prompt"] = [value - 100 for value in record["per_prompt"]]
            (folder / "evals.jsonl").write_text("".join(json.dumps(record) + "\n" for record in evals))
    after = analyse([tmp_path / "runs"])
    for name in FRAMES:
        frame = getattr(after, name)
        for column in {"variant", "other"} & set(frame.columns):
            frame = frame.filter(~pl.col(column).is_in(["awful", "zz-awful"]))
        assert csv(frame) == csv(getattr(before, name)), name
    assert "awful" in set(after.table["variant"])
    assert [verdict.headline.partition(":")[0] for verdict in after.verdicts] == [
        verdict.headline.partition(":")[0] for verdict in before.verdicts
    ]


def test_curves_hold_rewards_and_what_was_spent_epoch_by_epoch(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "prdp", seed, [1.0, 2.0 + seed, 3.0 + seed], forwards=10)
    write(analyse([tmp_path]), tmp_path / "out")
    curves = pl.read_csv(tmp_path / "out" / "curves.csv").filter(evaluation_set="seen")
    assert curves["epoch"].to_list() == [0, 5, 10]
    assert curves["mean"].to_list() == pytest.approx([1.0, 3.0, 4.0])
    assert curves["optimizer_steps"].to_list() == [0, 10, 20]
    assert curves["reward_queries"].to_list() == [0, 640, 1280]
    assert curves["denoiser_forwards"].to_list() == [0, 50, 100]
    assert curves["denoiser_backwards"].to_list() == [0, 25, 50]
    assert curves["seconds"].to_list() == [0, 25, 50]
    assert curves["seeds"].to_list() == [3, 3, 3]
    assert curves["low"][2] < 4.0 < curves["high"][2]
    assert curves["gain"].to_list() == pytest.approx([0.0, 2.0, 3.0])
    assert curves["gain_low"][0] == curves["gain_high"][0] == 0.0  # the base model is compared with itself
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert "| epoch | reward queries | prdp |" in markdown
    assert "|  | optimizer steps an epoch | 2 |" in markdown
    assert "| 5 | 640 | 3.00 [0.5" in markdown


def test_a_curve_ends_at_the_gain_that_the_tables_state(tmp_path: Path) -> None:
    for seed in range(3):
        for name in ("prdp", "ddpo"):
            apart = 0.1 * (1 + seed)
            write_run(tmp_path, name, seed, [1.0, 2.0, 3.0 + seed], per_prompt=(-2 * apart, apart, apart))
    found = analyse([tmp_path])
    key = ["variant", "evaluation_set", "measure"]
    ends = found.curves.filter(epoch=10).select(*key, "gain", "gain_low", "gain_high").sort(key)
    gains = found.estimates.filter(statistic="gain").select(*key, "estimate", "low", "high").sort(key)
    assert ends.rows() == gains.rows()
    assert ends.height == 4


def test_several_commits_and_versions_are_named_once_an_algorithm(tmp_path: Path) -> None:
    for algorithm in ("prdp", "ddpo", "dpok"):
        for seed in range(3):
            commit = "a" * 40 if seed < 2 or algorithm == "dpok" else "b" * 40
            versions = {"torch": "2.1" if algorithm != "dpok" or seed else "2.0", "numpy": "2.4"}
            write_run(tmp_path, algorithm, seed, [1.0, 2.0 + seed], git_commit=commit, versions=versions)
    found = analyse([tmp_path])
    assert found.notes.summaries == (
        "toy: the seeds of ddpo, prdp come from 2 commits of rfbench (aaaaaaa: seeds 0, 1; bbbbbbb: seed 2)",
        "toy: the seeds of dpok come from 2 versions of torch (2.0: seed 0; 2.1: seeds 1, 2)",
    )
    written = write(found, tmp_path / "out", html=tmp_path / "page.html")
    assert written.plots
    for text in ((tmp_path / "out" / "comparison.md").read_text(), (tmp_path / "page.html").read_text()):
        assert all(note in text for note in found.notes.summaries)
