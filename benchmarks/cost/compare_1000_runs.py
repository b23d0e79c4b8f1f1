"""Cost of `rfbench compare` on 1,000 runs x 100 evaluations x 6 prompt sets.

    python benchmarks/cost/compare_1000_runs.py [--folder FOLDER] [--figures] [--html]

Writes synthetic runs into FOLDER (a temporary one by default, about 400 MB; a folder that already holds them is reused)
and prints seconds and peak memory of one comparison in a fresh process. Each record carries the means of 45 prompts, as
a real one does. The target is 10 s and 1 GB on two cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from rfbench.records.format import FORMAT, RunRecord

ALGORITHMS = ("prdp", "ddpo", "dpok", "rwr")
SEEDS = 250
EVALUATIONS = 100
PROMPT_SETS = {"seen": True} | {f"unseen-{i}": False for i in range(5)}
PROMPTS = 45
IMAGES_PER_PROMPT = 4
SIZES = {"num_prompts": PROMPTS, "images_per_prompt": IMAGES_PER_PROMPT}
SUITE = {
    "name": "synthetic",
    "epochs": EVALUATIONS - 1,
    "reward": {"name": "preference"},
    "budget": {"reward_queries_per_epoch": 128},
    "evaluation": {"every": 1, "sets": {name: {"seen": seen} | SIZES for name, seen in PROMPT_SETS.items()}},
}
COUNTERS = {
    "reward_queries": 12_672,
    "images": 12_672,
    "denoiser_forwards": 1,
    "denoiser_backwards": 1,
    "optimizer_steps": 1,
}


def write_runs(root: Path) -> None:
    """Every run of every algorithm and seed, with one evaluation per epoch."""
    generator = np.random.default_rng(0)
    for rank, algorithm in enumerate(ALGORITHMS):
        for seed in range(SEEDS):
            folder = root / "synthetic" / algorithm / f"seed-{seed}"
            folder.mkdir(parents=True)
            (folder / "run.json").write_text(_run(algorithm, seed).to_json())
            (folder / "metrics.jsonl").write_text("".join(_metrics(epoch) for epoch in range(1, EVALUATIONS)))
            noise = generator.normal(0.0, 0.1, (EVALUATIONS, len(PROMPT_SETS), PROMPTS))
            values = (8.0 + (4 - rank) * np.linspace(0, 1, EVALUATIONS)[:, None, None] + noise).round(6).tolist()
            with open(folder / "evals.jsonl", "w") as file:
                for epoch in range(EVALUATIONS):
                    file.writelines(_evaluation(epoch, i, values[epoch][i]) for i in range(len(PROMPT_SETS)))


def _run(algorithm: str, seed: int) -> RunRecord:
    run = {"format": FORMAT, "status": "finished", "suite": SUITE | {"algorithms": {algorithm: {}}}, "suite_hash": "0"}
    run |= {
        "variant": algorithm,
        "variant_hash": "0",
        "seed": seed,
        "epoch": EVALUATIONS - 1,
        "epochs": EVALUATIONS - 1,
    }
    run |= {"counters": COUNTERS, "phase_seconds": {"sample": 1.0}, "peak_memory_bytes": 1, "trained_parameters": 1}
    run |= {"processes": 1, "plugins": {}, "inputs": {}, "device": "cpu", "versions": {}, "git_commit": None}
    run |= dict.fromkeys(("error", "prompts", "rewards", "files", "host", "job", "restart"))
    return RunRecord.model_validate(run | dict.fromkeys(("started_at", "updated_at"), "2026-01-01T00:00:00+00:00"))


def _metrics(epoch: int) -> str:
    seconds = {f"{phase}_seconds": 1.0 for phase in ("sample", "decode", "reward", "reference", "update", "other")}
    others = {f"metric_{i}": 0.5 for i in range(10)}
    return json.dumps({"epoch": epoch, "reward_mean": 8.0, "reward_queries": 128 * epoch} | seconds | others) + "\n"


def _evaluation(epoch: int, prompt_set: int, per_prompt: list[float]) -> str:
    name = list(PROMPT_SETS)[prompt_set]
    record = {"epoch": epoch, "reward_queries": 128 * epoch, "evaluation_set": name, "seen": PROMPT_SETS[name]}
    record |= {"measure": "preference", "role": "training", "unit": "logits", "mean": sum(per_prompt) / PROMPTS}
    return (
        json.dumps(record | {"standard_error": 0.02, "images": PROMPTS * IMAGES_PER_PROMPT, "per_prompt": per_prompt})
        + "\n"
    )


def measure(root: Path, figures: bool, html: bool) -> None:
    """One comparison; prints its own time and peak memory."""
    start = time.perf_counter()
    from rfbench.report import analyse, write

    with tempfile.TemporaryDirectory() as out:
        found = analyse([root])
        write(found, out, html=Path(out) / "report.html" if html else None, figures=figures)
        page = f", page {(Path(out) / 'report.html').stat().st_size / 1e6:.1f} MB" if html else ""
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = f"{found.runs.runs.height} runs, {found.runs.evals.height:,} evaluations"
    print(f"{size}: {seconds:.1f} s ({time.process_time():.1f} s of CPU), {memory:.2f} GiB{page}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the runs are, or go")
    parser.add_argument("--figures", action="store_true", help="draw the plots too")
    parser.add_argument("--html", action="store_true", help="write the page too")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.folder, options.figures, options.html)
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        if not (root / "synthetic").exists():
            write_runs(root)
        command = [sys.executable, __file__, "--measure", "--folder", str(root)]
        command += ["--figures"] * options.figures + ["--html"] * options.html
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
