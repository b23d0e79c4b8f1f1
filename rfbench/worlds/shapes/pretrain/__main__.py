"""The whole recipe: `python -m rfbench.worlds.shapes.pretrain --out DIR`, or one stage of it by `--stage NAME`.

A stage whose output exists is skipped, so an interrupted recipe goes on where it stopped; delete an output to redo it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rfbench.worlds.shapes.pretrain import sampling
from rfbench.worlds.shapes.pretrain.choose import choose_checkpoint, read_choice
from rfbench.worlds.shapes.pretrain.clip import train_clip
from rfbench.worlds.shapes.pretrain.export import export_base, export_reward
from rfbench.worlds.shapes.pretrain.gates import measure_gates
from rfbench.worlds.shapes.pretrain.latents import cache_latents
from rfbench.worlds.shapes.pretrain.preferences import collect_preferences
from rfbench.worlds.shapes.pretrain.reward import train_reward
from rfbench.worlds.shapes.pretrain.sampling import Objective
from rfbench.worlds.shapes.pretrain.unet import train_unet
from rfbench.worlds.shapes.pretrain.vae import train_vae
from rfbench.worlds.shapes.weights import FLOW, PIPELINE, REWARD

PARALLEL = ("vae", "clip")  # one core each


@dataclass(frozen=True)
class Stage:
    """A step of the recipe: the path that exists once it is done, and what makes it."""

    output: Path
    make: Callable[[Path], object]  # given a temporary path that becomes `output`


def stages(out: Path) -> dict[str, Stage]:
    """All stages in order, each depending only on earlier ones."""
    pool, preferences = out / "latents.safetensors", out / "preferences.safetensors"
    unets, choice = out / "unet", out / "choice.json"
    flows, flow_choice = out / "unet-flow", out / "choice-flow.json"
    pipeline, flow, reward = (out / "weights" / folder.name for folder in (PIPELINE, FLOW, REWARD))

    def train(objective: Objective) -> Callable[[Path], object]:
        return lambda path: train_unet(objective, out / "vae", out / "clip", pool, path)

    return {
        "vae": Stage(out / "vae", train_vae),
        "clip": Stage(out / "clip", train_clip),
        "latents": Stage(pool, lambda path: cache_latents(out / "vae", path)),
        "unet": Stage(unets, train(sampling.EPSILON)),
        "choose": Stage(choice, lambda path: choose_checkpoint(unets, path)),
        "preferences": Stage(preferences, lambda path: collect_preferences(unets, read_choice(choice), path)),
        "reward": Stage(out / "reward", lambda path: train_reward(out / "clip", preferences, path)),
        "export": Stage(pipeline, lambda path: export_base(unets / read_choice(choice), path, with_vae=True)),
        "export-reward": Stage(reward, lambda path: export_reward(out / "reward", path)),
        "gates": Stage(out / "gates.json", lambda path: measure_gates(pipeline, reward, path)),
        "unet-flow": Stage(flows, train(sampling.FLOW)),
        "choose-flow": Stage(flow_choice, lambda path: choose_checkpoint(flows, path)),
        "export-flow": Stage(flow, lambda path: export_base(flows / read_choice(flow_choice), path, with_vae=False)),
        "gates-flow": Stage(out / "gates-flow.json", lambda path: measure_gates(flow, reward, path)),
    }


def run_stage(name: str, stage: Stage) -> None:
    """Make a stage's output unless it exists; it takes its name only when it is whole."""
    if stage.output.exists():
        print(f"{name}: {stage.output} exists, skipped", flush=True)
        return
    start = time.perf_counter()
    stage.output.parent.mkdir(exist_ok=True)
    unfinished = stage.output.with_name(f"unfinished-{stage.output.name}")
    stage.make(unfinished)
    unfinished.rename(stage.output)
    print(f"{name}: {stage.output} made in {time.perf_counter() - start:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rfbench.worlds.shapes.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of all outputs; the result is DIR/weights")
    parser.add_argument("--stage", choices=list(stages(Path())), help="run this stage alone")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    recipe = stages(arguments.out)
    if arguments.stage:
        run_stage(arguments.stage, recipe[arguments.stage])
        return 0
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "rfbench.worlds.shapes.pretrain", "--out", str(arguments.out), "--stage", name],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for name in PARALLEL
    ]
    if any([worker.wait() for worker in workers]):
        return 1
    for name, stage in recipe.items():
        if name not in PARALLEL:
            run_stage(name, stage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
