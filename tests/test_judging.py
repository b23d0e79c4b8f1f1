"""Evaluation apart from training: the tiers, a run's last checkpoint, the untouched base model."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.cli import exit_code
from rfbench.core.evaluation import _Pictures
from rfbench.core.processes import Processes
from rfbench.errors import InputError
from rfbench.inference.evaluate import evaluate_run, judge
from rfbench.planning.plan import make_plan
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Suite
from tests import tiny

SETS: dict[str, Any] = {
    "seen": {"prompts": "train", "seen": True, "num_prompts": 3, "images_per_prompt": 2,
             "final": {"num_prompts": 5, "images_per_prompt": 3}},
    "new": {"prompts": "new", "seen": False, "num_prompts": 2, "images_per_prompt": 2, "exclude": ["train"],
            "final": {"num_prompts": 3, "images_per_prompt": 2}},
}  # fmt: skip


@pytest.fixture
def tiered(pipeline: Path, prompt_file: Path, tmp_path: Path) -> Suite:
    new = tmp_path / "new.txt"
    new.write_text("a fox\nA  CAT\na pig\n")
    files = {"train": prompt_file, "new": new}
    prompts = {name: {"name": "file", "path": str(path)} for name, path in files.items()}
    changes = {"epochs": 2, "prompts": prompts, "evaluation": {"every": 1, "sets": SETS}}
    return Suite.model_validate(tiny.make_suite(pipeline, prompt_file).model_dump() | changes)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_quick_tier_of_the_last_checkpoint_is_the_last_evaluation(tiered: Suite, tmp_path: Path) -> None:
    folder = train(make_plan(tiered, "ddpo", 0), tmp_path, Quiet())
    again = lines(evaluate_run(folder, "quick", Quiet()))
    last = [record for record in lines(folder / "evals.jsonl") if record["epoch"] == 2]
    assert again == last


def test_the_final_tier_is_larger_and_goes_on_where_it_stopped(tiered: Suite, tmp_path: Path) -> None:
    folder = train(make_plan(tiered, "ddpo", 0), tmp_path, Quiet())
    path = evaluate_run(folder, "final", Quiet())
    complete = lines(path)
    assert {(r["evaluation_set"], r["images"], len(r["per_prompt"])) for r in complete} == {
        ("seen", 15, 5),
        ("new", 4, 2),
    }
    path.write_text("".join(json.dumps(r) + "\n" for r in complete if r["evaluation_set"] == "seen"))
    assert lines(evaluate_run(folder, "final", Quiet())) == complete
    assert lines(evaluate_run(folder, "final", Quiet())) == complete


def test_a_run_is_judged_on_another_machine_from_the_command_line(
    tiered: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(make_plan(tiered, "ddpo", 0), tmp_path, Quiet())
    moved = tmp_path / "moved"
    moved.symlink_to(tiered.model.options["path"])
    options = ["--tier", "quick", "--set", f"model.path={moved}", "--set", "compute.chunk_size=3"]
    assert exit_code(["evaluate", str(folder), *options]) == 0
    judged, last = lines(folder / "quick.jsonl"), lines(folder / "evals.jsonl")[-len(lines(folder / "quick.jsonl")) :]
    assert [r["mean"] for r in judged] == pytest.approx([r["mean"] for r in last], rel=1e-3)
    assert f"written: {folder / 'quick.jsonl'}" in capsys.readouterr().out
    assert exit_code(["evaluate", str(folder), "--set", "compute.chunk=3"]) == 2
    assert "unknown key compute.chunk" in capsys.readouterr().err


def test_the_base_model_is_judged_without_a_run(tiered: Suite) -> None:
    plan = make_plan(tiered.at_tier("final"), "ddpo", 0)
    judged = [record for records in judge(plan, Processes(tiered.compute)) for record in records]
    assert [r.mean for r in judged if r.measure == "kl"] == [0, 0]
    assert {r.epoch for r in judged} == {0}


def test_the_quick_prompts_are_among_the_final_ones(tiered: Suite) -> None:
    quick, final = (make_plan(tiered.at_tier(tier), "ddpo", 0).evaluation_prompts for tier in ("quick", "final"))
    for name in SETS:
        assert set(quick[name]) < set(final[name]) or quick[name] == final[name]
    assert final["new"] == ["a fox", "a pig"]  # "A  CAT" is a training prompt


def test_a_judgement_that_was_cut_off_is_made_whole_again(tiered: Suite, tmp_path: Path) -> None:
    """Whole lines of a set that lacks others, and half a line, as a full disk leaves it."""
    folder = train(make_plan(tiered, "ddpo", 0), tmp_path, Quiet())
    path = evaluate_run(folder, "final", Quiet())
    complete = path.read_bytes()
    for cut in (complete.index(b"\n") + 1, len(complete) // 3, len(complete) - 5, 0):
        path.write_bytes(complete[:cut])
        evaluate_run(folder, "final", Quiet())
        assert path.read_bytes() == complete


def test_a_judgement_with_other_settings_is_refused_and_kept(tiered: Suite, tmp_path: Path) -> None:
    folder = train(make_plan(tiered, "ddpo", 0), tmp_path, Quiet())
    path = evaluate_run(folder, "final", Quiet())
    complete = path.read_bytes()
    with pytest.raises(InputError, match=r"evaluation.seed: 0 against 9"):
        evaluate_run(folder, "final", Quiet(), ["evaluation.seed=9"])
    with pytest.raises(InputError, match=r"evaluation.sets.seen.images_per_prompt: 3 against 7"):
        evaluate_run(folder, "final", Quiet(), ["evaluation.sets.seen.final.images_per_prompt=7"])
    (folder / "final.json").unlink()
    with pytest.raises(InputError, match=r"does not say what it was made with: final.json is missing beside it"):
        evaluate_run(folder, "final", Quiet())
    assert path.read_bytes() == complete


def test_a_tier_that_a_suite_lacks(suite: Suite, tiered: Suite) -> None:
    assert tiered.at_tier("quick") is tiered
    with pytest.raises(InputError, match=r"tiny has no final tier: evaluation.sets.seen.final is missing; use --tier"):
        suite.at_tier("final")


def test_only_runs_with_a_checkpoint_can_be_judged(tiered: Suite, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no run: it holds no run.json"):
        evaluate_run(tmp_path, "final", Quiet())


@pytest.mark.parametrize("copies", [2, 5])
def test_diversity_is_the_rms_difference_over_all_pairs(copies: int) -> None:
    images = torch.randint(0, 256, (3 * copies, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    pictures = _Pictures(copies, rows=2, columns=2)
    for image, picture in enumerate(images):
        pictures.add(image, picture)
    for group, diversity in zip(images.double().div(255).split(copies), pictures.diversity, strict=True):
        squares = [(a - b).square().mean() for a, b in combinations(group, 2)]
        assert diversity == pytest.approx(float(torch.stack(squares).mean().sqrt()), rel=1e-12)
    assert torch.equal(pictures.grid(3), images.unflatten(0, (3, copies))[:2, :2].int())
