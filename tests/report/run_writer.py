"""Writes synthetic run folders in the format that a real run leaves behind."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from rfbench.records.format import FORMAT, PHASES, EpochRecord, EvaluationRecord, Record, RunRecord
from rfbench.records.identity import suite_hash, variant_hash

SUITE: dict[str, Any] = {
    "name": "toy",
    "version": 1,
    "description": "",
    "reward": {"name": "preference"},
    "budget": {"reward_queries_per_epoch": 128},
}
EVERY, PROMPTS, IMAGES_PER_PROMPT = 5, 3, 30
SETS = {"seen": True, "unseen": False}


def write_run(
    root: Path,
    algorithm: str = "prdp",
    seed: int = 0,
    curve: Sequence[float] = (1.0, 2.0, 3.0, 4.0, 5.0),
    *,
    sets: dict[str, bool] = SETS,
    held_out: Sequence[float] | None = None,
    kl: Sequence[float] | None = None,
    per_prompt: Sequence[float] = (-0.1, 0.0, 0.1),
    standard_error: float = 0.01,
    forwards: int = 10,
    suite: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    **record: Any,
) -> Path:
    """A finished run with an evaluation every 5 epochs. `per_prompt` holds each prompt's offset from the mean.

    `forwards` are passes of the denoiser in an epoch; there are half as many backwards, and 2 optimizer steps.
    """
    images = (len(per_prompt) or PROMPTS) * IMAGES_PER_PROMPT
    evaluation = {
        "every": EVERY,
        "sets": {
            name: {"seen": seen, "num_prompts": len(per_prompt) or PROMPTS, "images_per_prompt": IMAGES_PER_PROMPT}
            for name, seen in sets.items()
        },
        "held_out_rewards": [{"name": "gold"}] if held_out else [],
    }
    last = EVERY * (len(curve) - 1)
    suite = copy.deepcopy(SUITE) | {"epochs": last, "evaluation": evaluation} | (suite or {})
    folder = root / suite["name"] / algorithm / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    suite["algorithms"] = {algorithm: {"algorithm": algorithm, "images_per_prompt": 8, "config": config or {}}}
    run = RunRecord.model_validate(
        {
            "format": FORMAT,
            "status": "finished",
            "error": None,
            "suite": suite,
            "suite_hash": suite_hash(suite, ()),
            "variant": algorithm,
            "variant_hash": variant_hash(suite, algorithm),
            "seed": seed,
            "epoch": last,
            "epochs": suite["epochs"],
            "counters": _work(last, forwards),
            "phase_seconds": {"sample": 2.0 * last, "update": 3.0 * last, "evaluate": 1.0},
            "peak_memory_bytes": 10**9,
            "trained_parameters": 1,
            "processes": 1,
            "plugins": {"algorithm": {"name": algorithm, "origin": "rfbench 0.1.0", "sha256": None}},
            "inputs": {},
            "device": "cpu",
            "versions": {"rfbench": "0.1.0"},
            "git_commit": "f" * 40,
            "started_at": "2026-01-01T00:00:00+00:00",
            "updated_at": f"2026-01-01T00:00:{seed:02d}+00:00",
        }
        | dict.fromkeys(("prompts", "rewards", "files", "host", "job", "restart"))
        | record
    )
    (folder / "run.json").write_text(run.to_json())
    measures = [("preference", "training", "logits", curve)]
    measures += [("gold", "held-out", "accuracy", held_out)] if held_out else []
    measures += [("kl", "diagnostic", "nats", kl)] if kl else []
    evals = [
        EvaluationRecord(
            epoch=EVERY * index,
            reward_queries=suite["budget"]["reward_queries_per_epoch"] * EVERY * index,
            evaluation_set=name,
            seen=seen,
            measure=measure,
            role=role,
            unit=unit,
            mean=values[index],
            standard_error=standard_error,
            images=images,
            per_prompt=[values[index] + offset for offset in per_prompt],
        )
        for index in range(len(curve))
        for name, seen in sets.items()
        for measure, role, unit, values in measures
    ]
    write_lines(folder / "evals.jsonl", evals)
    metrics = [_epoch_record(epoch, forwards) for epoch in range(1, last + 1)]
    write_lines(folder / "metrics.jsonl", metrics)
    return folder


def _work(epoch: int, forwards: int) -> dict[str, int]:
    """Everything counted by the end of an epoch."""
    work = {"reward_queries": 128 * epoch, "images": 128 * epoch, "optimizer_steps": 2 * epoch}
    return work | {"denoiser_forwards": forwards * epoch, "denoiser_backwards": forwards // 2 * epoch}


def _epoch_record(epoch: int, forwards: int) -> EpochRecord:
    seconds = dict.fromkeys((f"{phase}_seconds" for phase in PHASES), 0.0)
    seconds |= {"sample_seconds": 2.0, "update_seconds": 3.0, "evaluate_seconds": 1.0}
    rewards = {"reward_mean": 1.0, "reward_std": 1.0, "reward_std_within_prompt": 0.5}
    return EpochRecord.model_validate(
        {"epoch": epoch, "start_error": 0.0, "grad_norm": 1.0, "loss": 0.5} | rewards | _work(epoch, forwards) | seconds
    )


def write_lines(path: Path, records: Sequence[Record | dict[str, Any]]) -> None:
    lines = (record.to_json() if isinstance(record, Record) else json.dumps(record) for record in records)
    path.write_text("".join(f"{line}\n" for line in lines))


def write_samples(
    folder: Path, prompts: Sequence[str] = ("a cat", "a dog"), epochs: Sequence[int] = (0, 5, 10, 15, 20), tile: int = 8
) -> None:
    """A grid per epoch and prompt set, two images per prompt. Red is the epoch, green the row, blue the column."""
    samples = folder / "samples"
    samples.mkdir()
    index = {
        "prompts": {name: list(prompts) for name in SETS},
        "images_per_prompt": dict.fromkeys(SETS, 2),
        "tile": tile,
    }
    (samples / "index.json").write_text(json.dumps(index))
    for name in SETS:
        for epoch in epochs:
            grid = Image.new("RGB", (2 * tile, len(prompts) * tile))
            for row in range(len(prompts)):
                for column in range(2):
                    colour = (min(255, 10 * epoch), 20 * row % 256, 200 * column)
                    grid.paste(colour, (column * tile, row * tile, (column + 1) * tile, (row + 1) * tile))
            grid.save(samples / f"epoch-{epoch:04d}-{name}.png")
