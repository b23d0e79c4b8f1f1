"""The table of docs/gaussian.md: every algorithm and control of ``optimum-gaussian`` against the known optimum.

    python benchmarks/pages/gaussian_table.py [results]

Runs what is not finished yet under the given root, three seeds each, and prints Markdown.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from rfbench.core.policy import Policy
from rfbench.planning.plan import Plan, make_plan
from rfbench.running.checkpoint import Owner, load_latest
from rfbench.running.folder import RunFolder
from rfbench.running.progress import Lines
from rfbench.running.trainer import train
from rfbench.suite.loading import load_suite
from rfbench.worlds.gaussian import closed_forms, world
from rfbench.worlds.gaussian.model import Gaussian, GaussianConfig

SEEDS = (0, 1, 2)
HEADER = (
    "variant",
    "regret at the start",
    "regret at the end",
    "gap closed",
    "lowest regret (epoch)",
    "expected reward",
    "KL, nats",
    "u error",
)


@dataclass(frozen=True)
class GaussianRun:
    """A finished run's plan, folder and records."""

    plan: Plan
    folder: Path
    metrics: list[dict[str, Any]]
    evals: list[dict[str, Any]]

    def curve(self, measure: str) -> list[float]:
        """The means of a measure, evaluation by evaluation."""
        return [record["mean"] for record in self.evals if record["measure"] == measure]

    def gap_closed(self) -> float:
        """Share of J* - J_ref that was closed at the end."""
        regret = self.curve("regret")
        return 1 - regret[-1] / regret[0]

    def lowest_regret(self) -> tuple[float, int]:
        """The lowest regret and the epoch of that evaluation."""
        return min((record["mean"], record["epoch"]) for record in self.evals if record["measure"] == "regret")

    def prediction_error(self) -> float | None:
        """PRDP: rms of (u_i - u_j) - (r_i - r_j)/beta over rms of (r_i - r_j)/beta, in the last ten epochs.

        Before each epoch's first update, so without clipping. None for other algorithms.
        """
        last = self.metrics[-10:]
        if "first_loss" not in last[0]:
            return None
        return math.sqrt(sum(r["first_loss"] for r in last) / sum(r["target_rms"] ** 2 for r in last))

    def own_gap_closed(self) -> tuple[float, float]:
        """DPOK: share of the gap of its own objective that was closed; share of J* - J_ref that its optimum closes."""
        model = Gaussian(GaussianConfig(), torch.device("cpu"))
        sampler = self.plan.suite.sampler
        schedule = model.process.chain(sampler)
        policy = Policy(model, schedule, guidance_scale=1.0, finetune=self.plan.suite.finetune)
        owner = Owner.recorded(RunFolder(self.folder, writer=False).require_run())
        saved = load_latest(self.folder / "checkpoints", torch.device("cpu"), owner)
        assert saved is not None
        policy.load_state_dict(saved.weights)

        chain, directions = closed_forms.reference_chain(schedule, model.exact), world.directions()
        config = self.plan.algorithm.config
        own_beta = closed_forms.noise_penalty_beta(schedule, config.kl_weight / config.reward_weight)
        beta = self.plan.model.config.beta / (schedule.num_steps * world.DIMENSIONS)

        def share(shifts: torch.Tensor, beta: float | torch.Tensor) -> float:
            end, start = (
                closed_forms.measures(chain, directions, directions, of, beta)["regret"].mean()
                for of in (shifts, torch.zeros_like(shifts))
            )
            return 1 - float(end / start)

        own_optimum = closed_forms.optimal_shifts(chain, directions, own_beta)
        return share(model.mean_shifts(schedule), own_beta), share(own_optimum, beta)


def run(label: str, seed: int, root: Path, overrides: Sequence[str] = ()) -> GaussianRun:
    """Runs ``label`` on the suite, or reads the finished run."""
    plan = make_plan(load_suite("optimum-gaussian", overrides), label, seed)
    folder = train(plan, root, Lines(Console(quiet=True)))
    metrics, evals = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("metrics", "evals")
    )
    return GaussianRun(plan, folder, metrics, evals)


def row(label: str, runs: Sequence[GaussianRun]) -> tuple[str, ...]:
    """Means over seeds, the regret at the end with its standard deviation."""

    def mean(values: Sequence[float]) -> float:
        return statistics.fmean(values)

    ends = [run.curve("regret")[-1] for run in runs]
    errors = [error for run in runs if (error := run.prediction_error()) is not None]
    lowest = [run.lowest_regret() for run in runs]
    return (
        label,
        f"{mean([run.curve('regret')[0] for run in runs]):.3f}",
        f"{mean(ends):.2g} ± {statistics.stdev(ends):.1g}",
        _percent(mean([run.gap_closed() for run in runs])),
        f"{mean([regret for regret, _ in lowest]):.2g} ({', '.join(str(epoch) for _, epoch in lowest)})",
        f"{mean([run.curve('expected_reward')[-1] for run in runs]):.3f}",
        f"{mean([run.curve('expected_kl')[-1] for run in runs]):.2f}",
        f"{mean(errors):.2g}" if errors else "–",
    )


def _percent(share: float) -> str:
    return f"{share:.2%}" if share > 0 else f"{share:.0%}"


def main(root: Path) -> None:
    suite = load_suite("optimum-gaussian")
    runs = {label: [run(label, seed, root) for seed in SEEDS] for label in suite.algorithms}
    for cells in (HEADER, ("---",) * len(HEADER), *(row(label, of) for label, of in runs.items())):
        print(f"| {' | '.join(cells)} |")
    own = [run.own_gap_closed() for run in runs["dpok"]]
    closed = ", ".join(f"{share:.1%}" for share, _ in own)
    print(
        f"\nDPOK closed {closed} of the gap of its own objective, whose optimum closes {own[0][1]:.1%} of J* - J_ref."
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
