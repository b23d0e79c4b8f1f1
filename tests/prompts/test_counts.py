"""What is left out or cut of a run's prompts is counted in run.json and said at its start."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from rfbench.models.stable_diffusion import StableDiffusion, StableDiffusionConfig
from rfbench.planning.plan import make_plan
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Suite
from tests import tiny

LONG = " ".join(["word"] * 10_000)


def test_duplicates_exclusions_and_truncations_are_counted(pipeline: Path, tmp_path: Path) -> None:
    training, test = tmp_path / "train.txt", tmp_path / "test.txt"
    training.write_text("\n".join([*tiny.PROMPTS, "A cat", LONG]))
    test.write_text("a fox\na dog\n")
    plain = tiny.make_suite(pipeline, training, epochs=1)
    data = plain.model_dump()
    data["prompts"]["test"] = {"name": "file", "path": str(test)}
    unseen = {"prompts": "test", "seen": False, "num_prompts": 2, "images_per_prompt": 1, "exclude": ["train"]}
    data["evaluation"]["sets"]["new"] = unseen
    data["evaluation"]["sets"]["seen"]["num_prompts"] = 7
    data |= {"budget": {"reward_queries_per_epoch": 14}, "algorithms": {"ddpo": {"images_per_prompt": 2}}}
    progress = Quiet()
    folder = train(make_plan(Suite.model_validate(data), "ddpo", 0), tmp_path, progress)
    counts = json.loads((folder / "run.json").read_text())["prompts"]
    assert counts["sets"] == {"train": {"prompts": 7, "duplicates": 1}, "test": {"prompts": 2, "duplicates": 0}}
    assert counts["evaluation"]["seen"] == {"prompts": 7, "excluded": 0, "truncated": 1}
    assert counts["evaluation"]["new"] == {"prompts": 1, "excluded": 1, "truncated": 0}
    assert progress.notes[:3] == [
        "prompts.train: 7, without 1 that equal another",
        "evaluation.sets.seen: the text encoder does not read 1 to the end",
        "evaluation.sets.new: 1, without 1 of the sets it excludes",
    ]
    (epoch,) = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    assert epoch["truncated_prompts"] == 1


def test_a_prompt_is_truncated_where_more_words_change_nothing(pipeline: Path) -> None:
    """The tiny tokenizer takes 12 tokens, a letter each: ten letters between the two that it adds."""
    model = StableDiffusion(StableDiffusionConfig(path=str(pipeline)), torch.device("cpu"))
    for letters, truncated in ((9, False), (10, False), (11, True), (30, True)):
        prompt = " ".join("a" * letters)
        assert model.truncates(prompt) is truncated
        longer = model.encode(prompt + " a")["text"]
        assert torch.equal(model.encode(prompt)["text"], longer) is (letters >= 10)
