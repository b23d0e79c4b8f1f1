"""`rfbench calibrate`: the base model's numbers, beside the paper's where a suite names its experiment."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rfbench.cli import exit_code
from rfbench.inference.calibrate import calibrate
from rfbench.planning.plan import make_plan
from rfbench.records.format import EvaluationRecord
from rfbench.report.calibration import rows
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.loading import load_suite
from rfbench.suite.suite import Suite
from tests.commands import said


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_calibration_is_what_every_run_starts_from(suite: Suite, tmp_path: Path) -> None:
    measured = lines(calibrate(suite, "quick", tmp_path, Quiet()))
    for label in ("prdp", "rwr"):
        folder = train(make_plan(suite, label, seed=7), tmp_path, Quiet())
        assert measured == [record for record in lines(folder / "evals.jsonl") if record["epoch"] == 0]
    assert exit_code(["compare", str(tmp_path)]) == 0  # the base model's folder is no run


def test_a_calibration_that_was_stopped_goes_on_and_another_suites_is_refused(
    suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = "evaluation.sets.seen.final={ num_prompts = 4, images_per_prompt = 3 }"
    command = ["calibrate", str(suite_file), "--tier", "final", "--out", str(tmp_path), "--set", final]
    assert exit_code(command) == 0
    written = tmp_path / "mine" / "base" / "final.jsonl"
    complete = written.read_text()
    assert {record["images"] for record in lines(written)} == {12}
    assert re.search(r"seen jpeg-in\S* 12 ", said(capsys))
    assert exit_code(command) == 0
    assert written.read_text() == complete
    assert exit_code([*command, "--set", "sampler.guidance_scale=3.0"]) == 2
    assert "final.jsonl was made with other settings: sampler.guidance_scale: 2.0 against 3.0" in said(capsys)
    assert written.read_text() == complete


def test_gaps_to_the_papers_base_model() -> None:
    """Table 1 gives SD v1.4 an HPSv2 of 0.2855 on the 45 animals; Fig. 10 and PickScore have no number there."""
    suite = load_suite("tiny-shapes", ["paper.suite=small", "paper.reward=hpsv2"])
    common = {"epoch": 0, "reward_queries": 0, "evaluation_set": "animals-45", "seen": True, "role": "diagnostic"}
    common |= {"unit": "", "images": 90, "standard_error": 0.001, "per_prompt": []}
    measured = [{"measure": "diversity", "mean": 0.2}, {"measure": "hpsv2", "mean": 0.2800}]
    records = [EvaluationRecord.model_validate(common | values) for values in measured]
    first, second = rows(records, suite)
    assert (first.measure, first.paper) == ("hpsv2", 0.2855)
    assert first.gap == pytest.approx(-0.0055)
    assert (second.measure, second.paper, second.gap) == ("diversity", None, None)
    assert all(row.paper is None for row in rows(records, load_suite("tiny-shapes")))
