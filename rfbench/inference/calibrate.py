"""Calibration: the untouched base model on a suite's evaluation sets, before anything is spent on training.

The records are those of ``evals.jsonl`` at epoch 0, in ``<root>/<suite>/base/<tier>.jsonl``, where ``rfbench evaluate``
puts the same of a run beside that run; ``base.json`` says what they were made with. Every run of the suite starts from
these very numbers, since the evaluation has a seed of its own. The folder holds no run: ``rfbench compare`` passes by.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from rfbench.core.processes import Processes
from rfbench.errors import InputError
from rfbench.inference.evaluate import judge
from rfbench.planning.plan import Plan, outlines
from rfbench.running import provenance
from rfbench.running.folder import RunFolder, write_atomically
from rfbench.running.progress import Progress
from rfbench.suite.suite import Suite, TierName


def calibrate(suite: Suite, tier: TierName, root: Path, progress: Progress) -> Path:
    """Judges the base model set by set, and returns the file of records.

    What an earlier, unfinished calibration measured is kept; one of another suite of that name is an ``InputError``.
    """
    plan = base_plan(suite, tier)
    processes = Processes(plan.suite.compute)
    folder = RunFolder(root / suite.name / "base", writer=processes.is_main)
    _check_same(folder.path / "base.json", suite)
    if processes.is_main:
        made_with = {"suite": suite.model_dump(mode="json"), "suite_hash": suite.hash}
        content = json.dumps(made_with | provenance.describe(processes.device), indent=2)
        write_atomically(folder.path / "base.json", content.encode() + b"\n")
    done = {record["evaluation_set"] for record in folder.read(tier)}
    processes.wait()
    for records in judge(plan, processes, skip=done):
        if processes.is_main:
            folder.append(tier, *records)
        progress.evaluation(records)
    processes.close()
    return folder.path / f"{tier}.jsonl"


def base_plan(suite: Suite, tier: TierName) -> Plan:
    """A plan to judge the base model with: any algorithm's, since nothing is trained."""
    fitting = outlines(suite.at_tier(tier))
    if not fitting:
        raise InputError(
            f"no installed algorithm fits {suite.name} with its defaults; add a table [algorithms.prdp] to the suite"
        )
    return fitting[0].open()


def _check_same(description: Path, suite: Suite) -> None:
    if not description.exists():
        return
    earlier = json.loads(description.read_text(encoding="utf-8"))["suite_hash"]
    if earlier != suite.hash:
        raise InputError(
            f"{description.parent} holds a calibration of {suite.name} with hash {earlier}, but the suite's hash is "
            f"{suite.hash}; remove that folder, or choose another --out"
        )


class Row(NamedTuple):
    """One measure on one prompt set; ``paper`` is the paper's base model there, None where it gives no number."""

    prompts: str
    measure: str
    images: int
    measured: float
    standard_error: float | None
    paper: float | None

    @property
    def gap(self) -> float | None:
        """Measured less published."""
        return None if self.paper is None else self.measured - self.paper


def rows(records: list[dict[str, Any]], suite: Suite) -> list[Row]:
    """The calibration's table: numbers that the paper gives too, then the others."""
    from rfbench.report.analysis.paper import base_row

    paper = base_row(suite.paper.suite, suite.paper.reward) if suite.paper else {}
    table = [
        Row(
            record["evaluation_set"],
            record["measure"],
            record["images"],
            record["mean"],
            record["standard_error"],
            paper.get((record["evaluation_set"], record["measure"])),
        )
        for record in records
    ]
    return sorted(table, key=lambda row: row.paper is None)
