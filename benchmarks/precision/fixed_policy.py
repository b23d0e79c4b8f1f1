"""What bf16 and fp16 do to the ratios, clip decisions and gradients of PRDP and DDPO, at a fixed policy.

    python -m rfbench_benchmarks.precision.fixed_policy --suite large-shapes --out precision/base
    python -m rfbench_benchmarks.precision.fixed_policy --suite large-shapes --run FOLDER --out precision/of-run

A batch is sampled in fp32, and the algorithm takes its own first step on it, in fp32: all that follows is about one
pair of policies and one set of trajectories. A new Adam's first step is several times as long as its later ones; with
``--epochs-before`` the algorithm first trains that many epochs, in fp32.

Of the second step, the first at which a clip can bind, each precision computes the log-ratios l_t (both policies'
log-probs in that precision), which of them are outside of the clip range, and the gradient. Against fp32's: the
standard deviation of the error of l_t in nats per latent dimension, the share of decisions that differ, and the cosine
of the gradients of all trained parameters. With remedies:

    difference of means  l_t is the mean over dimensions of (mu - mu_old) (2x - mu - mu_old) / (2 sigma^2), which has no
                         difference of nearly equal squares
    last layer in fp32   the network's last layer computes in fp32, from what the others give in low precision

``table.md`` and ``table.json`` in the folder are the result.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from rfbench.core.processes import Processes
from rfbench.errors import InputError
from rfbench.files import write_atomically
from rfbench.planning.plan import make_plan
from rfbench.records.identity import suite_hash
from rfbench.running.assembly import Run, make_run
from rfbench.running.provenance import device_name
from rfbench.suite.loading import load_suite
from rfbench_benchmarks.gradient_probe import load_trained
from rfbench_benchmarks.precision.measure import REMEDIES, Error, error, outcomes
from rfbench_benchmarks.precision.second_step import second_step

ALGORITHMS = ("prdp", "ddpo")
EXACT = "fp32"
IN_FP32 = ["compute.precision=fp32", "compute.compile=false"]  # the policy that is rounded


def measure(run: Run, epochs_before: int, batches: int) -> dict[str, Any]:
    """The rows of the run's algorithm, and what its log-ratios are in fp32, after that many epochs of training."""
    for epoch in range(epochs_before):
        run.update(run.rollout(epoch))
    start = {name: weights.clone() for name, weights in run.policy.state_dict().items()}
    errors: dict[tuple[str, str], list[Error]] = {}
    exact_ratios, outside, clip_range = [], [], 0.0
    for batch in range(batches):
        step = second_step(run, epochs_before + batch)
        clip_range = step.clip_range
        found = {precision: outcomes(run.learner, step, precision) for precision in REMEDIES}
        exact = found[EXACT][REMEDIES[EXACT][0]]
        exact_ratios.append(exact.log_ratios)
        outside.append(exact.outside)
        for precision, of_precision in found.items():
            for remedy, outcome in of_precision.items():
                errors.setdefault((precision, remedy), []).append(error(outcome, exact))
        run.policy.load_state_dict(start)
        print(f"{run.plan.label}: batch {batch + 1} of {batches}", flush=True)
    return {
        "clip_range": clip_range,
        "pairs": sum(map(len, exact_ratios)),
        "log_ratio_std": float(torch.cat(exact_ratios).std()),
        "outside": float(torch.cat(outside).double().mean()),
        "rows": [{"precision": p, "remedy": r, **_pooled(of_cell)} for (p, r), of_cell in errors.items()],
    }


def _pooled(errors: list[Error]) -> dict[str, float]:
    """Over batches."""
    values = torch.tensor(errors, dtype=torch.float64)
    return {
        "log_ratio_error_std": float(values[:, 0].square().mean().sqrt()),
        "decisions_changed": float(values[:, 1].mean()),
        "cosine": float(values[:, 2].mean()),
        "lowest_cosine": float(values[:, 2].min()),
    }


def markdown(result: dict[str, Any]) -> str:
    """The table, and a line about each algorithm."""
    lines = [
        "| precision | algorithm | remedy | std of l_t's error | clip decisions changed | cosine to fp32 | lowest |"
    ]
    lines.append("|---|---|---|---:|---:|---:|---:|")
    for precision in REMEDIES:
        for label, found in result["algorithms"].items():
            lines += [
                f"| {precision} | {label} | {row['remedy']} | {row['log_ratio_error_std']:.2g} | "
                f"{100 * row['decisions_changed']:.2f}% | {row['cosine']:.5f} | {row['lowest_cosine']:.5f} |"
                for row in found["rows"]
                if row["precision"] == precision
            ]
    lines.append("")
    for label, found in result["algorithms"].items():
        lines.append(
            f"{label} in fp32: {found['pairs']} pairs, std of l_t {found['log_ratio_std']:.2g}, "
            f"{100 * found['outside']:.1f}% outside of the clip range of {found['clip_range']:g}."
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--suite", required=True, help="whose model, rewards, and settings of PRDP and DDPO are taken")
    parser.add_argument("--run", type=Path, help="begin with what this run on the suite's model trained")
    parser.add_argument("--out", type=Path, required=True, help="folder of the result; an earlier one is replaced")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a field of the suite"
    )
    parser.add_argument("--epochs-before", type=int, default=0, help="that each algorithm trains before the batches")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--batch-images", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1000, help="of prompts and noise; no run should have the same")
    options = parser.parse_args(arguments)
    if options.batches < 1:
        parser.error(f"--batches {options.batches} must be 1 or more")
    if options.epochs_before < 0:
        parser.error(f"--epochs-before {options.epochs_before} must be 0 or more")
    torch.set_num_threads(1)
    settings = [*options.set, *IN_FP32, f"budget.reward_queries_per_epoch={options.batch_images}"]
    suite = load_suite(options.suite, settings)
    missing = [label for label in ALGORITHMS if label not in suite.algorithms]
    if missing:
        raise InputError(
            f"the suite {suite.name} has no settings of {missing[0]}; give them in [algorithms.{missing[0]}]"
        )
    processes, epoch = Processes(suite.compute), 0
    result: dict[str, Any] = {"algorithms": {}}
    for label in ALGORITHMS:
        run = make_run(make_plan(suite, label, options.seed), processes)
        if options.run is not None:
            epoch = load_trained(run, options.run)
        result["algorithms"][label] = measure(run, options.epochs_before, options.batches)
        planned = run.plan.planned(processes.size)
    result["settings"] = {
        "suite": suite.name,
        "suite_hash": suite_hash(planned.suite, planned.inputs),
        "run": str(options.run) if options.run else None,
        "epoch": epoch,
        "device": device_name(processes.device),
        **{name: getattr(options, name) for name in ("epochs_before", "batches", "batch_images", "seed")},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out / "table.json", json.dumps(result, indent=2).encode() + b"\n")
    write_atomically(options.out / "table.md", markdown(result).encode())
    print(markdown(result))


if __name__ == "__main__":
    main()
