"""The paper's experiment end to end, as a user types it, on tiny files in the published formats."""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
from pathlib import Path

import polars as pl
import pytest
import torch

from rfbench.cli import exit_code
from rfbench.core.learner import Learner
from tests import tiny
from tests.commands import said
from tests.rewards.tiny import make_clip, make_hpsv2
from tests.runs import assert_same_run, kill_at

pytestmark = pytest.mark.slow

SETS = {  # evaluation set: its file in the data set's repository
    "pickapic-v1-test": "data/test_unique-00000-of-00001-73a51cbb6488571d.parquet",
    "hpdv2-animation": "benchmark/anime.json",
    "hpdv2-concept-art": "benchmark/concept-art.json",
    "hpdv2-painting": "benchmark/paintings.json",
    "hpdv2-photo": "benchmark/photo.json",
}


def make_prompts(folder: Path) -> dict[str, str]:
    """The published data sets, smaller, laid out as on the hub; the settings that name them."""
    train = folder / "train.json"
    pairs = [{"prompt": f"a boat on lake {i // 2}", "human_preference": [1, 0], "file_path": []} for i in range(12)]
    train.write_text(json.dumps(pairs))
    settings = {"prompts.train.path": str(train)}
    for name, file in SETS.items():
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        prompts = [f"{name} of tree {i}" for i in range(3)] + ["A boat on lake 1"]  # the last one is seen in training
        if path.suffix == ".parquet":
            pl.DataFrame({"caption": prompts, "url": [""] * len(prompts)}).write_parquet(path)
        else:
            path.write_text(json.dumps(prompts))
        settings[f"prompts.{name}.path"] = str(folder)
    return settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What makes the suite as small as the files: nothing but paths and sizes is changed."""
    folder = tmp_path_factory.mktemp("published")
    hpsv2 = make_hpsv2(folder)
    clip = str(make_clip(folder / "clip"))
    changes: dict[str, object] = {
        "model.path": tiny.make_pipeline(folder / "pipeline"),
        **{f"reward.{name}": value for name, value in hpsv2.items()},
        "evaluation.held_out_rewards.0.path": clip,
        "evaluation.held_out_rewards.0.processor": clip,
        **make_prompts(folder),
        "epochs": 2,
        "sampler.num_steps": 4,
        "budget.reward_queries_per_epoch": 16,
        "evaluation.every": 2,
        "compute.device": "cpu",
        "compute.checkpoint_every": 1,
    }
    for name in ("hpdv2-train", *SETS):
        changes |= {f"evaluation.sets.{name}.num_prompts": 4, f"evaluation.sets.{name}.images_per_prompt": 1}
    return [argument for key, value in changes.items() for argument in ("--set", f"{key}={value}")]


def run(out: Path, settings: list[str], *options: str) -> int:
    return exit_code(["run", "prdp", "--suite", "large-hpsv2", "--out", str(out), *settings, *options])


def doomed(out: Path, settings: list[str]) -> None:
    """A run that is killed in its second epoch; in a fresh process, since polars' threads do not survive a fork."""
    torch.set_num_threads(1)  # as in the process that resumes it: the number can change the last bits of a sum
    kill_at(Learner, "backward", 8)
    run(out, settings)


def test_runs_is_killed_and_resumed_and_stands_beside_the_papers_curve(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=doomed, args=(tmp_path / "killed", settings))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert run(tmp_path / "killed", settings, "--resume") == 0
    assert run(tmp_path / "whole", settings) == 0
    killed, whole = (tmp_path / name / "large-hpsv2" / "prdp" / "seed-0" for name in ("killed", "whole"))
    assert_same_run(killed, whole)

    evaluations = [json.loads(line) for line in (whole / "evals.jsonl").read_text().splitlines()]
    unseen = [record for record in evaluations if record["measure"] == "hpsv2" and not record["seen"]]
    assert {record["images"] for record in unseen} == {3}  # without the prompt that is in training too
    assert {record["unit"] for record in unseen} == {"cosine"}

    capsys.readouterr()
    assert exit_code(["compare", str(tmp_path / "whole"), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    ours = {(row["measure"], row["evaluation_set"]): row for row in compared["paper"] if row["method"] == "prdp"}
    assert ours["hpsv2", "hpdv2-photo"]["paper"] == 0.3159
    assert ours["hpsv2", "hpdv2-photo"]["measured"] is not None


def test_calibration_shows_the_papers_row(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(["calibrate", "large-hpsv2", "--out", str(tmp_path), *settings]) == 0
    printed = said(capsys)
    assert re.search(r"hpdv2-photo +hpsv2 +3 +-?\S+ +0.275 ", printed)  # in 80 columns
    assert not re.search(r"\bkl\b +4", printed)


def test_doctor_finds_nothing_amiss(settings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["doctor", "large-hpsv2", *settings]) == 0
    assert "large-hpsv2 can run on this machine" in said(capsys)


def test_the_wrong_hpsv2_and_a_missing_prompt_file(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, settings, "--set", "prompts.train.path=/no/train.json") == 2
    assert "prompts.train.path: there is no file or folder /no/train.json" in said(capsys)
    assert run(tmp_path, settings, "--set", "reward.version=v2.1") == 2
    assert "reward.version is 'v2.1', but" in said(capsys)
