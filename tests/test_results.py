"""The reference results that ship: complete, small, of clean code, and what the pages say of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rfbench.planning.plan import make_outline
from rfbench.planning.suite_components import suite_components
from rfbench.records.format import FORMAT
from rfbench.records.identity import suite_hash, variant_hash
from rfbench.records.migration import parse_run
from rfbench.suite.loading import load_suite
from rfbench_benchmarks.pages import arena, ladder, probes, stability_map, studies, tables
from rfbench_benchmarks.pages.collect import MEGABYTES, collect
from tests.report.run_writer import SUITE, write_run

ROOT = Path(__file__).parent.parent
SHORT = ("epochs=30", "evaluation.every=5")
STUDIES = {  # what a study's runs changed of a suite that ships
    "sensitivity": ("large-shapes", (*SHORT, "name=sensitivity")),
    "sensitivity-noisy": ("large-shapes", (*SHORT, "name=sensitivity-noisy", "reward_noise=1.25")),
    "small-shapes-flow-arena": (
        "small-shapes-arena",
        ("name=small-shapes-flow-arena", "model.name=shapes-flow", "sampler.kind=flow-sde"),
    ),
}


@pytest.mark.slow
def test_every_table_on_the_pages_is_what_compare_says() -> None:
    rungs = ladder.read([*tables.reference_runs(), *tables.reference_runs(tables.LADDER)])
    contest = ladder.read(tables.reference_runs(tables.ARENA), arena.SUITE)
    found = tables.every_table(stability_map.read(tables.reference_runs(tables.SENSITIVITY)), rungs, contest)
    for name in tables.PAGES:
        page = (ROOT / name).read_text(encoding="utf-8")
        assert len(tables.BLOCK.findall(page)) == page.count("<!-- end -->") > 0, name
        assert tables.filled(page, found) == page, f"{name}: run `python -m rfbench_benchmarks.pages.tables`"


def test_every_reference_run_is_finished_of_clean_code_and_of_the_suite_as_it_is() -> None:
    runs, swept = tables.reference_runs(), tables.reference_runs(tables.SENSITIVITY)
    contest = tables.reference_runs(tables.ARENA)
    assert runs
    assert swept
    assert contest
    for folder in (*runs, *swept, *contest):
        content = (folder / "run.json").read_bytes()
        assert json.loads(content)["format"] == FORMAT, folder  # migrated, not only readable
        run = parse_run(content, str(folder))
        assert run.status == "finished", folder
        assert len(run.git_commit or "") == 40, folder  # no "-dirty"
        name = run.suite["name"]
        suite = load_suite(*STUDIES.get(name, (name,)))
        assert run.suite_hash == suite_components(suite).suite_hash, folder
        assert run.suite_hash == suite_hash(run.suite, run.inputs), folder
        assert run.variant_hash == variant_hash(run.suite, run.variant), folder
        if folder not in swept and run.variant in suite.algorithms:  # that study's records stay what they were
            assert run.variant_hash == variant_hash(make_outline(suite, run.variant, 0).resolved(), run.variant), folder


def test_the_stability_map_has_the_gain_of_each_rate_and_noise_and_who_collapsed(tmp_path: Path) -> None:
    ends = {
        ("ddpo", "sensitivity"): {"x0_333": 10.1, "": 10.2, "x3": 4.0},
        ("ddpo", "sensitivity-noisy"): {"x0_333": 10.0, "": 10.05, "x3": 3.0},
        ("prdp", "sensitivity"): {"x0_333": 10.3, "": 10.5, "x3": 10.4},
        ("prdp", "sensitivity-noisy"): {"x0_333": 10.25, "": 10.35},
    }
    for (algorithm, suite), rates in ends.items():
        for factor, end in rates.items():
            label = f"{algorithm}-learning_rate-{factor}" if factor else algorithm
            curve = (10.0, (10 + end) / 2, end, end)
            write_run(tmp_path, label, curve=curve, sets={"seen": True}, suite=SUITE | {"name": suite})
    quiet = SUITE | {"name": "sensitivity"}
    write_run(tmp_path, "ddpo-learning_rate-x3", seed=1, curve=(10.0,) * 4, sets={"seen": True}, suite=quiet)
    text = stability_map.to_markdown(stability_map.read([tmp_path]))
    rates = ("rate × 1/3", "rate × 1", "rate × 3")
    columns = [f"{noise}, {rate}" for noise in ("no noise", "noise") for rate in rates]
    assert text.splitlines() == [
        f"| variant | {' | '.join(columns)} |",
        "| --- |" + " ---: |" * 6,
        "| prdp | +0.30 | +0.50 | +0.40 | +0.25 | +0.35 | – |",
        "| ddpo | +0.10 | +0.20 | -3.00 (1 of 2 collapsed) | +0.00 | +0.05 | -7.00 (collapsed) |",
    ]


def test_a_contrast_of_the_ladder_pairs_its_seeds(tmp_path: Path) -> None:
    ends = {"prdp-k1": {0: 10.5, 1: 10.9, 2: 11.4, 3: 12.0}, "prdp": {0: 10.9, 1: 11.2, 2: 11.9}, "ddpo": {0: 10.1}}
    large = SUITE | {"name": "large-shapes"}
    for cell, of in ends.items():
        for seed, end in of.items():
            curve = (10.0, (10 + end) / 2, end, end)
            write_run(tmp_path, cell, seed, curve=curve, suite=large)
    found = ladder.read([tmp_path]).ends["seen"]
    pair = stats.ttest_rel(*([ends[cell][seed] for seed in range(3)] for cell in ("prdp", "prdp-k1")))
    limits = pair.confidence_interval()
    paired = ladder.contrast(found, "prdp-k1", "prdp")
    assert paired is not None
    interval, seeds = paired
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((0.4, limits.low, limits.high))
    assert seeds == 3
    assert ladder.contrast(found, "ddpo", "prdp") is None  # one seed in common tells nothing
    assert ladder.contrast(found, "ddpo", "ddpo-16x8") is None


def test_differences_are_of_the_same_seeds_and_epochs(tmp_path: Path) -> None:
    def run(suite: str, variant: str, seed: int, at_100: float, *more: float) -> Path:
        curve = (10.0, *[10.0] * 19, at_100, *more)
        return write_run(tmp_path, variant, seed, curve=curve, kl=[0.0] * len(curve), suite=SUITE | {"name": suite})

    shipped = [run("large-shapes", variant, seed, 11.0 + seed) for variant in ("ddpo", "ddpo-group") for seed in (0, 1)]
    added = [run("large-shapes-added", "ddpo", 0, 10.1, 9.0), run("large-shapes-added-100", "ddpo-group", 1, 12.5)]
    lines = [line.split(" | ") for line in studies.differences_table(shipped, added).splitlines()[2:]]
    assert [line[:5] for line in lines] == [
        ["| `ddpo`", "as they are", "100", "1", "+1.00"],  # seed 1 has no such run
        ["| `ddpo`", "added", "100", "1", "+0.10"],
        ["| `ddpo`", "added", "250", "1", "-1.00"],
        ["| `ddpo-group`", "as they are", "100", "1", "+2.00"],
        ["| `ddpo-group`", "added", "100", "1", "+2.50"],
    ]


def test_estimators_on_the_same_images_are_paired(tmp_path: Path) -> None:
    """Against scipy's paired t interval."""
    drawn = np.random.default_rng(0).normal(0.02, 0.01, (2, 8))
    rows = [
        {"estimator": name, "images_per_prompt": 1, "batch": batch, "adam": value, "plain": 0.0}
        for name, values in zip((probes.BATCH, probes.REMOVED), drawn, strict=True)
        for batch, value in enumerate(values)
    ]
    rows += [
        r | {"estimator": n, "images_per_prompt": 8} for r in rows[:8] for n in (probes.BATCH, probes.GROUP, probes.STD)
    ]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "batches.json").write_text(json.dumps(rows))
    (tmp_path / "mine" / "probe.json").write_text(json.dumps({"estimators": [], "reference": {}}))
    first = probes.probe_tables(tmp_path)["probe mine pairs"].splitlines()[2]
    limits = stats.ttest_rel(drawn[1], drawn[0]).confidence_interval()
    assert f"{float((drawn[1] - drawn[0]).mean()):+.4f} [{limits.low:+.4f}, {limits.high:+.4f}]" in first


def swept_run(root: Path, seed: int, **record: object) -> Path:
    """A run of small-shapes as a sweep leaves it."""
    folder = write_run(root, "prdp", seed, suite={"name": "small-shapes"}, **record)
    (folder / "checkpoints").mkdir()
    (folder / "samples").mkdir()
    for name in ("index.json", *(f"epoch-{epoch:04d}-seen.png" for epoch in (0, 5, 10, 15, 20))):
        (folder / "samples" / name).write_text("{}")
    return folder


def test_collecting_takes_finished_runs_with_the_grids_of_seed_0(tmp_path: Path) -> None:
    for seed, status in ((0, "finished"), (1, "finished"), (2, "running")):
        swept_run(tmp_path / "swept", seed, status=status)
    collect(tmp_path / "swept", tmp_path / "results")
    top = tmp_path / "results" / "small-shapes" / "prdp"
    records = ["evals.jsonl", "metrics.jsonl", "run.json"]
    grids = ["epoch-0000-seen.png", "epoch-0010-seen.png", "epoch-0020-seen.png", "index.json"]
    assert sorted(str(path.relative_to(top)) for path in top.rglob("*.*")) == [
        *(f"seed-0/{name}" for name in (*records, *(f"samples/{grid}" for grid in grids))),
        *(f"seed-1/{name}" for name in records),
    ]
    assert (top / "seed-1" / "evals.jsonl").read_bytes() == (
        tmp_path / "swept/small-shapes/prdp/seed-1/evals.jsonl"
    ).read_bytes()


def test_collecting_refuses_runs_of_uncommitted_code(tmp_path: Path) -> None:
    swept_run(tmp_path / "swept", 0, git_commit="f" * 40 + "-dirty")
    with pytest.raises(SystemExit, match="commit it, and run again"):
        collect(tmp_path / "swept", tmp_path / "results")


def test_collecting_a_study_gzips_its_records(tmp_path: Path) -> None:
    swept_run(tmp_path / "swept", 0)
    made = [collect(tmp_path / "swept", tmp_path / "studies" / "mine")[0] for _ in range(2)]
    files = {path.name: path for path in made[0].rglob("*.*")}
    assert sorted(files) == ["evals.jsonl.gz", "metrics.jsonl.gz", "run.json"]
    plain = tmp_path / "swept/small-shapes/prdp/seed-0/evals.jsonl"
    assert gzip.decompress(files["evals.jsonl.gz"].read_bytes()) == plain.read_bytes()


def test_shipped_records_stay_small() -> None:
    files = [path for folder in tables.reference_runs("results") for path in folder.rglob("*")]
    size = sum(path.stat().st_size for path in files if path.is_file() and "checkpoints" not in path.parts)
    assert 0 < size < MEGABYTES * 1e6
