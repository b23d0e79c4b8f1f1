"""The suites that repeat the PRDP paper (arXiv 2402.08714v2): its numbers, its names, and runs on tiny files."""

from __future__ import annotations

import csv
import json
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from rfbench.errors import InputError
from rfbench.planning.plan import make_outline, make_plan
from rfbench.report.analysis.paper import base_row
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.loading import load_suite
from rfbench.suite.suite import Suite


class Setting(NamedTuple):
    """A column of the paper's Table 4."""

    epochs: int
    updates: int
    prompts: int
    images: int
    beta: float
    clip: float
    learning_rate: float


SMALL = Setting(100, 10, 32, 16, 3e-5, 1e-6, 1e-5)
LARGE = Setting(1000, 1, 64, 8, 3e-6, 1e-4, 7e-6)
TABLE_4 = {
    "small-hpsv2": SMALL,
    "small-pickscore": SMALL,
    "online-offline": SMALL,
    "large-hpsv2": LARGE,
    "large-pickscore": LARGE,
    "large-multireward": Setting(1000, 1, 64, 8, 3e-5, 1e-4, 1e-5),
}
SUITES = [*TABLE_4, "kl-aesthetic"]
UNSEEN = {"pickapic-v1-test": 500, **dict.fromkeys(("hpdv2-animation", "hpdv2-concept-art"), 800)}
UNSEEN |= dict.fromkeys(("hpdv2-painting", "hpdv2-photo"), 800)


@pytest.mark.parametrize("name", TABLE_4)
def test_prdp_has_the_numbers_of_table_4(name: str) -> None:
    suite, paper = load_suite(name), TABLE_4[name]
    settings = suite.settings_for("prdp")
    found = Setting(
        suite.epochs,
        settings.config["updates_per_epoch"],
        suite.prompts_per_epoch("prdp"),
        settings.images_per_prompt,
        settings.config["beta"],
        settings.config["clip_range"],
        settings.optimizer.learning_rate,
    )
    assert found == paper
    assert (settings.optimizer.weight_decay, settings.optimizer.max_grad_norm) == (1e-4, 1.0)


@pytest.mark.parametrize("name", SUITES)
def test_what_all_of_the_papers_experiments_share(name: str) -> None:
    suite = load_suite(name)
    assert suite.model.options["path"] == "CompVis/stable-diffusion-v1-4"
    assert suite.finetune.method == "full"
    sampler = suite.sampler
    assert (sampler.kind, sampler.num_steps, sampler.guidance_scale, sampler.skip_last_steps) == ("ddpm", 50, 5.0, 0)
    assert suite.budget.reward_queries_per_epoch == 512
    assert {"prdp", "ddpo", "dpok", "rwr"} <= suite.algorithms.keys()


def test_the_rewards_are_the_papers() -> None:
    for name in ("small-hpsv2", "large-hpsv2", "online-offline"):
        assert load_suite(name).reward.model_dump() == {"name": "hpsv2", "version": "v2.0"}
    for name in ("small-pickscore", "large-pickscore"):
        assert load_suite(name).reward.name == "pickscore"
    terms = load_suite("large-multireward").reward.options["terms"]
    assert {term["name"]: term["weight"] for term in terms} == {"pickscore": 10.0, "hpsv2": 2.0, "aesthetic": 0.05}
    assert terms[1]["version"] == "v2.0"


def test_figure_10_and_figure_7() -> None:
    kl = load_suite("kl-aesthetic")
    assert (kl.epochs, kl.reward.name, kl.prompts["train"].options) == (250, "aesthetic", {"template": "{}"})
    assert [reward.name for reward in kl.evaluation.held_out_rewards] == ["hpsv2", "pickscore"]
    for beta in (0.1, 1.0, 10.0):
        assert kl.settings_for(f"prdp-beta-{beta:g}").config["beta"] == beta
    offline = load_suite("online-offline")
    assert offline.settings_for("prdp-offline").sample_from == "reference"
    assert offline.epochs * offline.budget.reward_queries_per_epoch == 51_200


@pytest.mark.parametrize("name", [name for name in TABLE_4 if name.startswith("large")])
def test_large_baselines(name: str) -> None:
    suite = load_suite(name)
    assert suite.prompts_per_epoch("ddpo") == 512
    assert suite.prompts_per_epoch("ddpo-group") == 64
    assert suite.settings_for("ddpo-group").config["advantage"] == "group"


@pytest.mark.parametrize("name", SUITES)
def test_the_final_tier_is_the_papers_evaluation(name: str) -> None:
    sets = load_suite(name).at_tier("final").evaluation.sets
    sizes = {label: (s.num_prompts, s.images_per_prompt, s.seen) for label, s in sets.items()}
    if not name.startswith("large"):
        images = 64 if name == "kl-aesthetic" else 256  # appendix C; section 4.1
        assert sizes == {"animals-45": (45, images, True)}
        return
    seen = "pickapic-v1-train" if name == "large-multireward" else "hpdv2-train"
    assert sizes == {seen: (500, 64, True)} | {label: (count, 64, False) for label, count in UNSEEN.items()}


@pytest.mark.parametrize("name", SUITES)
def test_every_set_has_its_row_in_the_paper(name: str) -> None:
    suite = load_suite(name)
    assert suite.paper is not None
    row = base_row(suite.paper.suite, suite.paper.reward)
    sets = {label for label in suite.evaluation.sets if label != "pickapic-v1-train"}  # the paper has no such row
    assert {prompts for prompts, measure in row if measure == suite.reward.name} == sets


def test_the_base_row_is_that_of_the_papers_tables() -> None:
    """Against a reading of the shipped file that shares nothing with the one tested."""
    text = (resources.files("rfbench.report.analysis") / "data" / "prdp_results.csv").read_text()
    rows = [row for row in csv.reader(line for line in text.splitlines() if not line.startswith("#"))][1:]
    table_2 = {
        (prompts, reward): float(value)
        for table, reward, method, prompts, _, value in rows
        if table == "2" and method == "sd-v1.4" and reward == "hpsv2"
    }
    assert base_row("large", "hpsv2") == table_2
    assert base_row("small", "hpsv2") == {("animals-45", "hpsv2"): 0.2855}
    assert base_row("large", "multi")["hpdv2-photo", "weighted-sum"] == 2.984
    assert base_row("small", "aesthetic")["animals-45", "pickscore"] == 0.2155


def local(suite: str, folder: Path, pipeline: Path) -> list[str]:
    """``--set`` options that put tiny files in the published formats, and rewards without files, in a suite's place."""
    words = [f"{colour} {thing}" for colour in ("red", "blue", "green", "old") for thing in map(str, range(130))]
    train = [{"human_preference": [1, 0], "prompt": word, "file_path": ["0.jpg", "1.jpg"]} for word in words]
    (folder / "train.json").write_text(json.dumps(train + train))
    pl.DataFrame({"caption": words * 2, "label_0": 0.5}).write_parquet(folder / "train.parquet")
    pl.DataFrame({"caption": ["Red 1", *(f"test {i}" for i in range(499))]}).write_parquet(folder / "test.parquet")
    options = [
        f"model.path={pipeline}",
        "reward={ name = 'jpeg-incompressibility' }",
        "evaluation.held_out_rewards=[]",
        "compute.device=cpu",
        "compute.precision=fp32",
    ]
    if suite.startswith("large"):
        multi = suite == "large-multireward"
        options.append(f"prompts.train.path={folder / ('train.parquet' if multi else 'train.json')}")
        options.append(f"prompts.pickapic-v1-test.path={folder / 'test.parquet'}")
        for style in ("animation", "concept-art", "painting", "photo"):
            (folder / f"{style}.json").write_text(json.dumps([f"{style} {i}" for i in range(800)]))
            options.append(f"prompts.hpdv2-{style}.path={folder / f'{style}.json'}")
    return options


@pytest.mark.parametrize("name", SUITES)
def test_every_algorithm_can_be_planned_on_local_files(name: str, tmp_path: Path, pipeline: Path) -> None:
    suite = load_suite(name, local(name, tmp_path, pipeline))
    for label in suite.algorithms:
        outline = make_outline(suite, label, seed=0)
        assert outline.prompts_per_epoch * outline.settings.images_per_prompt == 512
    plan = make_plan(suite.at_tier("final"), "prdp", seed=0)
    if "pickapic-v1-test" in plan.evaluation_prompts:
        assert len(plan.prompts["train"]) == 520
        assert len(plan.evaluation_prompts["pickapic-v1-test"]) == 499  # "Red 1" is a training prompt
        assert len(plan.evaluation_prompts["hpdv2-photo"]) == 800


def test_without_the_files_every_missing_one_is_named(tmp_path: Path) -> None:
    absent = [f"prompts.train.path={tmp_path / 'none.json'}", f"model.path={tmp_path / 'none'}"]
    with pytest.raises(InputError, match=r"model.path: there is no (.|\n)*prompts.train.path: there is no") as raised:
        make_plan(load_suite("large-hpsv2", absent), "prdp", seed=0)
    assert "--set model.path=PATH" in str(raised.value)


@pytest.mark.parametrize("name", ["large-hpsv2", "kl-aesthetic"])
def test_a_run_from_start_to_end_on_tiny_files(name: str, tmp_path: Path, pipeline: Path) -> None:
    few = [
        "epochs=1",
        "budget.reward_queries_per_epoch=8",
        "sampler.num_steps=3",
        "compute.gradient_checkpointing=false",
    ]
    few += ["algorithms.prdp.images_per_prompt=4", "algorithms.prdp.config.updates_per_epoch=1"]
    suite: Suite = load_suite(name, local(name, tmp_path, pipeline) + few)
    small: dict[str, Any] = suite.model_dump()
    for settings in small["evaluation"]["sets"].values():
        settings |= {"num_prompts": 2, "images_per_prompt": 1}
    folder = train(make_plan(Suite.model_validate(small), "prdp", 0), tmp_path / "results", Quiet())
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_the_arenas_have_the_same_settings() -> None:
    """What was chosen on the small suite goes unchanged into the large one."""
    small, large = (load_suite(f"{size}-shapes-arena").algorithms for size in ("small", "large"))
    assert len(large) == 10
    assert large == {name: small[name] for name in large}
