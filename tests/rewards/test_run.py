"""A run on reward models in the published formats, from the suite to its records."""

from __future__ import annotations

import json
from pathlib import Path

from rfbench.rewards import weights
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from tests import tiny as core
from tests.rewards import tiny


def test_a_run_records_its_rewards_with_unit_and_version(pipeline: Path, prompt_file: Path, tmp_path: Path) -> None:
    hpsv2, pickscore = tiny.settings_of("hpsv2", tmp_path), tiny.settings_of("pickscore", tmp_path)
    sets = {"seen": {"prompts": "train", "seen": True, "num_prompts": 2, "images_per_prompt": 2}}
    suite = core.make_suite(
        pipeline,
        prompt_file,
        epochs=1,
        reward={"name": "hpsv2"} | hpsv2,
        evaluation={"sets": sets, "held_out_rewards": [{"name": "pickscore"} | pickscore]},
    )
    folder = train(core.plan(suite), tmp_path / "results", Quiet())
    digests = weights.digest(Path(hpsv2["path"])), weights.digest(Path(pickscore["path"]) / "model.safetensors")
    assert json.loads((folder / "run.json").read_text())["rewards"] == {
        "hpsv2": {"unit": "cosine", "version": f"v2.0, {digests[0]}"},
        "pickscore": {"unit": "cosine", "version": f"v1, {digests[1]}, PIL resize"},
    }
    evals = [json.loads(line) for line in (folder / "evals.jsonl").read_text().splitlines()]
    means = {(e["epoch"], e["measure"]): e["mean"] for e in evals if e["role"] != "diagnostic"}
    assert means.keys() == {(epoch, name) for epoch in (0, 1) for name in ("hpsv2", "pickscore")}
    assert means[0, "hpsv2"] != means[1, "hpsv2"]
