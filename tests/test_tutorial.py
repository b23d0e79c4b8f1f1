"""docs/tutorial.ipynb: its cells run from top to bottom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rfbench

NOTEBOOK = Path(__file__).parent.parent / "docs" / "tutorial.ipynb"
SMALLER = {  # than the notebook's own six runs, which take ten minutes
    "epochs": 2,
    "evaluation.every": 1,
    "sampler.num_steps": 3,
    "sampler.skip_last_steps": 1,
    "budget.reward_queries_per_epoch": 16,
    "evaluation.sets.seen.num_prompts": 2,
    "evaluation.sets.unseen.num_prompts": 2,
}

pytestmark = pytest.mark.slow


def test_the_cells_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = rfbench.run

    def smaller_run(*arguments: Any, overrides: dict[str, Any], **options: Any) -> rfbench.Result:
        return run(*arguments, overrides=overrides | SMALLER, **options)

    monkeypatch.setattr(rfbench, "run", smaller_run)
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert {path.parent.name for path in (tmp_path / "tutorial-results").rglob("seed-1")} == {
        "prdp",
        "ddpo",
        "reinforce",
    }
    assert names["comparison"].verdicts[0].suite == "tiny-shapes"
