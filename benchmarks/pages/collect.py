"""Puts the finished runs of a sweep among the reference results: the records, a few sample grids, and what two trained.

    python -m rfbench_benchmarks.pages.collect SWEPT [results/reference]

Below results/studies the records are gzipped, without grids.

Runs of a tree with uncommitted changes are refused: nobody could make them again.
"""

from __future__ import annotations

import gzip
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from rfbench.files import packed, read_packed, remove, write_atomically
from rfbench.records.format import RunRecord
from rfbench.report.load import STUDIES
from rfbench.running.folder import RECORDS, RunFolder
from rfbench.suite.loading import suite_names

MEGABYTES = 30
WITH_WEIGHTS = {("large-shapes", "prdp", 4), ("large-shapes", "ddpo", 4)}  # suite, variant, seed: to draw from at once


def collect(swept: Path, results: Path) -> list[Path]:
    """Copies every finished run below ``swept`` to the same place below ``results``; the folders written."""
    written = []
    for run_file in sorted(swept.glob("*/*/seed-*/run.json")):
        source = RunFolder(run_file.parent, writer=False)
        run = source.require_run()
        if run.status != "finished":
            continue
        if not run.git_commit or run.git_commit.endswith("-dirty"):
            raise SystemExit(f"{run_file.parent} was made by the code {run.git_commit}: commit it, and run again")
        folder = results / run_file.parent.relative_to(swept)
        folder.mkdir(parents=True, exist_ok=True)
        target = RunFolder(folder, writer=False)
        for name in RECORDS:
            remove(packed(folder / f"{name}.jsonl"))
            target.replace(name, source.read(name))  # in today's format, whichever it was made in
        target.write_run(run)
        shutil.rmtree(folder / "samples", ignore_errors=True)
        if results.parent.name == STUDIES:
            _pack(folder)
        else:
            _copy_samples(run, run_file.parent / "samples", folder / "samples")
        if (run.suite["name"], run.variant, run.seed) in WITH_WEIGHTS:
            _halve(source.weights, target.weights)
        written.append(folder)
    return written


def _pack(folder: Path) -> None:
    """Gzips the records of a run, the same bytes each time."""
    for name in RECORDS:
        plain = folder / f"{name}.jsonl"
        write_atomically(packed(plain), gzip.compress(read_packed(plain), mtime=0))
        remove(plain)


def _copy_samples(run: RunRecord, samples: Path, target: Path) -> None:
    for picture in _kept_samples(run, samples):
        target.mkdir(exist_ok=True)
        shutil.copyfile(picture, target / picture.name)


def _kept_samples(run: RunRecord, samples: Path) -> list[Path]:
    """The grids of the first, middle and last evaluation, and their index; of seed 0 alone, on a suite that ships."""
    if run.seed != 0 or run.suite["name"] not in suite_names():
        return []
    epochs = sorted({int(path.name.split("-")[1]) for path in samples.glob("epoch-*.png")})
    kept = {epochs[0], epochs[len(epochs) // 2], epochs[-1]} if epochs else set()
    return [samples / "index.json", *(p for p in samples.glob("epoch-*") if int(p.name.split("-")[1]) in kept)]


def _halve(weights: Path, target: Path) -> None:
    """The trained weights in 16 bits, as the base model ships: half the size, and the same pictures to a grey level."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(weights, target)
    for file in target.rglob("*.safetensors"):
        halved = {name: tensor.to(torch.float16).contiguous() for name, tensor in load_file(file).items()}
        save_file(halved, file, metadata={"format": "pt"})


def main() -> None:
    swept, results = Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "results/reference")
    written = collect(swept, results)
    size = sum(path.stat().st_size for path in results.rglob("*") if path.is_file()) / 1e6
    print(f"{len(written)} runs; {results} holds {size:.1f} MB")
    if size > MEGABYTES:
        raise SystemExit(f"more than the {MEGABYTES} MB that the reference results may take")


if __name__ == "__main__":
    main()
