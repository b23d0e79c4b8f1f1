"""The shipped suite, run as anyone runs it: who reaches the KL-regularised optimum, and who runs past it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rfbench.gaussian import closed_forms, world
from rfbench.plan import make_plan
from rfbench.progress import Lines
from rfbench.schedule import make_schedule
from rfbench.suite import load_suite
from rfbench.trainer import train

BETA = 4.0


class Finished:
    """The records of a run."""

    def __init__(self, folder: Path) -> None:
        self.metrics = self._read(folder / "metrics.jsonl")
        self._evals = self._read(folder / "evals.jsonl")

    @staticmethod
    def _read(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    def curve(self, measure: str) -> list[float]:
        return [record["mean"] for record in self._evals if record["measure"] == measure]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs of the suite by label, each made once."""
    root, made = tmp_path_factory.mktemp("results"), {}

    def run(label: str) -> Finished:
        if label not in made:
            suite = load_suite("optimum-gaussian", ["compute.checkpoint_every=1000"])
            made[label] = Finished(train(make_plan(suite, label, seed=0), root, Lines(Console(quiet=True))))
        return made[label]

    return run


def gap_closed(run: Finished) -> float:
    """Share of J* - J_ref that the run closed."""
    regret = run.curve("regret")
    return 1 - regret[-1] / regret[0]


def prediction_error(run: Finished) -> float:
    """rms of (u_i - u_j) - (r_i - r_j) / beta over that of its second term, before the last epochs' first updates."""
    last = run.metrics[-10:]
    return math.sqrt(sum(r["first_loss"] for r in last) / sum(r["target_rms"] ** 2 for r in last))


@pytest.mark.parametrize("label", ["prdp", "prdp-no-clip"])
def test_prdp_reaches_the_optimum(runs: Any, label: str) -> None:
    run = runs(label)
    assert gap_closed(run) > 0.98
    assert run.curve("kl") == pytest.approx(run.curve("expected_kl"), rel=1e-4)


def test_prdp_predicts_reward_differences_up_to_the_start(runs: Any) -> None:
    """The error that is left is the part of the reward that x_T carries, which no step's log-ratio can hold."""
    schedule = make_schedule(world.noise_schedule(), world.NUM_TIMESTEPS, kind="ddim")
    chain = closed_forms.reference_chain(schedule, world.DATA_STD)
    steps = (chain.reach * chain.sigma).square().sum()
    start = chain.initial_reach.square()
    floor = math.sqrt(float(start / (start + steps)))
    assert 0.04 < floor < 0.05
    assert prediction_error(runs("prdp")) < 1.5 * floor


def test_ddpo_runs_past_the_optimum_without_end(runs: Any) -> None:
    """No KL term: the reward passes that of the optimum, and reward and KL are still growing at the end."""
    run, regret = runs("ddpo"), runs("ddpo").curve("regret")
    rewards, kl = run.curve("expected_reward"), run.curve("expected_kl")
    optimal_reward = rewards[0] + 2 * regret[0]  # a quadratic's optimum: half of the gain in reward is paid in KL
    assert rewards[-1] > rewards[0] + 2 * (optimal_reward - rewards[0])
    half = len(kl) // 2
    assert all(later > earlier for earlier, later in zip(kl[half:], kl[half + 1 :], strict=False))
    assert rewards[-1] > rewards[half]
    assert min(regret) < 0.3 * regret[0] < regret[0] < regret[-1]
