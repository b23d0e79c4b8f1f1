"""Stages `choose` and `choose-flow`: the checkpoint that gets about two thirds of the 45 prompts' attributes right."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from rfbench.worlds.shapes import gold
from rfbench.worlds.shapes.grammar import split
from rfbench.worlds.shapes.pretrain.sampling import Base

TARGET = 0.62  # gold attribute accuracy: room to improve, yet every attribute is sometimes right
IMAGES_PER_PROMPT = 8
SEED = 5


def choose_checkpoint(checkpoints: Path, file: Path) -> None:
    """Measure every checkpoint with the same noise; write all accuracies and the one closest to TARGET."""
    folders = sorted(checkpoints.glob("step-*"), key=_step)
    accuracy = {folder.name: _accuracy(folder) for folder in folders}
    for name, value in accuracy.items():
        print(f"choose {name}  gold {value:.3f}", flush=True)
    chosen = min(accuracy, key=lambda name: abs(accuracy[name] - TARGET))
    file.write_text(json.dumps({"chosen": chosen, "accuracy": accuracy}, indent=2) + "\n", encoding="utf-8")


def read_choice(file: Path) -> str:
    """The name of the chosen checkpoint's folder."""
    chosen: str = json.loads(file.read_text(encoding="utf-8"))["chosen"]
    return chosen


def neighbours(checkpoints: Path, chosen: str) -> tuple[str, str]:
    """Checkpoints of about half and twice the chosen one's steps, whose samples are worse and better."""
    steps = sorted(_step(folder) for folder in checkpoints.glob("step-*"))
    own = int(chosen.removeprefix("step-"))
    half = min(steps, key=lambda step: abs(step - own / 2))
    twice = min(steps, key=lambda step: abs(step - own * 2))
    return f"step-{half}", f"step-{twice}"


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _accuracy(folder: Path) -> float:
    prompts = [prompt for prompt in split("small") for _ in range(IMAGES_PER_PROMPT)]
    images = Base.load(folder).sample(prompts, torch.Generator().manual_seed(SEED))
    return gold.attribute_accuracy(images, prompts).mean().item()
