"""docs/first-algorithm.md: the file that its blocks make learns, and passes the conformance suite."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from rfbench.cli import exit_code
from rfbench.plugins import registry
from rfbench.testing import CHECKS

PAGE = Path(__file__).parent.parent / "docs" / "first-algorithm.md"


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plugin") / "loop.py"
    file.write_text("\n\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)))
    return file


def test_its_regret_falls_on_the_analytic_world(loop: Path, tmp_path: Path) -> None:
    command = ["run", "loop", "--suite", "optimum-gaussian", "--plugin", str(loop), "--out", str(tmp_path)]
    for setting in (
        "epochs=10",
        "algorithms.loop.images_per_prompt=16",
        "algorithms.loop.optimizer.learning_rate=0.01",
    ):
        command += ["--set", setting]
    assert exit_code([*command, "--set", "epochs=10"]) == 0
    records = map(json.loads, (tmp_path / "optimum-gaussian/loop/seed-0/evals.jsonl").read_text().splitlines())
    regret = [record["mean"] for record in records if record["measure"] == "regret"]
    assert regret[-1] < 0.9 * regret[0]


def test_its_baseline_is_the_mean_of_the_others(loop: Path) -> None:
    registry.add_file(loop)
    module = registry.find("algorithms", "loop").update.__globals__
    rewards = torch.tensor([1.0, 2.0, 6.0, 3.0, 5.0])
    others = module["leave_one_out_mean"](rewards, torch.tensor([0, 0, 0, 1, 1]))
    assert others.tolist() == [4.0, 3.5, 1.5, 5.0, 3.0]


@pytest.fixture(scope="module")
def algorithm(loop: Path) -> type:
    """Its class, one for all checks."""
    registry.add_file(loop)
    return registry.find("algorithms", "loop")


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_conformance(check, algorithm: type, tmp_path: Path) -> None:
    registry.register("algorithms", "loop", algorithm)
    check("loop", tmp_path)
