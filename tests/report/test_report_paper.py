"""The paper's numbers stand beside ours, and are never taken for ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rfbench.report import analyse, write
from rfbench.report.analysis.paper import paper_curves
from rfbench.report.render.page import write_page
from tests.report.run_writer import write_run

REFERENCE: dict[str, Any] = {"paper": {"suite": "small", "reward": "hpsv2"}}


def write_hpsv2(
    root: Path, algorithm: str, curve: list[float], sets: dict[str, bool], suite: dict[str, object]
) -> None:
    path = write_run(root, algorithm, 0, curve, sets=sets, suite={"reward": {"name": "hpsv2"}} | suite) / "evals.jsonl"
    path.write_text(path.read_text().replace('"preference"', '"hpsv2"'))


def test_the_base_model_is_calibrated_first(tmp_path: Path) -> None:
    write_hpsv2(tmp_path, "prdp", [0.2905, 0.34], {"animals": True}, REFERENCE)
    comparison = analyse([tmp_path])
    rows = comparison.paper.select("method", "paper", "measured").rows()
    assert rows == [("sd-v1.4", 0.2855, 0.2905), ("ddpo", 0.3398, None), ("prdp", 0.3471, 0.34)]
    assert comparison.paper["gap"][0] == pytest.approx(0.005)
    sentences = " ".join(comparison.verdicts[0].sentences)
    assert "0.2905 against 0.2855 (+0.0050) on animals (seen)" in sentences
    assert "prdp" in comparison.table["variant"].to_list()
    assert comparison.table["variant"].n_unique() == 1  # the paper's rows are not ours
    write(comparison, tmp_path / "out")
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert "| hpsv2 | animals (seen) | sd-v1.4 (paper) | 0.2855 | 0.2905 | +0.0050 |" in markdown
    assert "| hpsv2 | animals (seen) | ddpo (paper) | 0.3398 | – | – |" in markdown


def test_large_suites_match_prompt_sets_by_name(tmp_path: Path) -> None:
    sets = {"seen": True, "hpdv2-photo": False, "mine": False}
    write_hpsv2(tmp_path, "ddpo", [0.27, 0.22], sets, {"paper": {"suite": "large", "reward": "hpsv2"}})
    paper = analyse([tmp_path]).paper
    assert paper["evaluation_set"].unique(maintain_order=True).to_list() == ["seen", "hpdv2-photo"]
    assert paper.filter(evaluation_set="seen", method="sd-v1.4")["paper"].item() == 0.2685  # hpdv2-train
    assert paper.filter(evaluation_set="hpdv2-photo", method="ddpo")["gap"].item() == pytest.approx(0.22 - 0.2093)


def test_the_curves_are_drawn_against_epochs_and_queries_and_not_seconds(tmp_path: Path) -> None:
    write_hpsv2(tmp_path, "prdp", [0.2905, 0.34], {"seen": True}, REFERENCE)
    assert "PRDP" in write(analyse([tmp_path]), tmp_path / "out", x="epochs").plots[0].caption
    assert "PRDP" not in write(analyse([tmp_path]), tmp_path / "out", x="seconds").plots[0].caption


def test_the_page_has_them_for_the_training_reward_on_seen_prompts(tmp_path: Path) -> None:
    write_hpsv2(tmp_path, "prdp", [0.2905, 0.34], {"seen": True, "unseen": False}, REFERENCE)
    page = write_page(analyse([tmp_path]), [], tmp_path / "page.html", "epochs").read_text()
    (measure,) = json.loads(page.split('class="data">')[1].split("</script>")[0])["measures"]
    seen, unseen = measure["sets"]
    assert [curve["name"] for curve in seen["paper"]] == ["prdp", "ddpo"]
    assert [curve["gain"][0] for curve in seen["paper"]] == [0, 0]
    assert unseen["paper"] == []


def test_curves_end_where_the_paper_ends() -> None:
    curves = paper_curves({"suite": "large", "reward": "hpsv2"})
    last = curves.filter(variant="ddpo").sort("epoch").row(-1, named=True)
    gain = pytest.approx(0.2476 - 0.2702)  # less the poster's own base model
    assert last == {"variant": "ddpo", "epoch": 1000, "reward_queries": 512_000, "mean": 0.2476, "gain": gain}
    assert paper_curves({"suite": "small", "reward": "pickscore"}).is_empty()


def test_a_suite_without_a_reference_has_no_paper_rows(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert analyse([tmp_path]).paper.is_empty()
