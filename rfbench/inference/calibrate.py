"""Calibration: the untouched base model on a suite's evaluation sets, before anything is spent on training.

The records are those of ``evals.jsonl`` at epoch 0, in ``<root>/<suite>/base/<tier>.jsonl``, where ``rfbench evaluate``
puts the same of a run beside that run; ``<tier>.json`` says what they were made with. Every run of the suite starts
from these very numbers, since the evaluation has a seed of its own. The folder holds no run, and ``rfbench compare``
leaves it out.
"""

from __future__ import annotations

from pathlib import Path

from rfbench.core.processes import Processes
from rfbench.errors import InputError
from rfbench.inference.evaluate import judge_into
from rfbench.planning.plan import Plan, outlines
from rfbench.running.folder import RunFolder
from rfbench.running.progress import Progress
from rfbench.suite.suite import Suite, TierName


def calibrate(suite: Suite, tier: TierName, root: Path, progress: Progress) -> Path:
    """Judges the base model set by set, and returns the file of records.

    What an earlier, unfinished calibration measured is kept; one made with other settings is an ``InputError``.
    """
    plan = base_plan(suite, tier)
    processes = Processes(plan.suite.compute)
    folder = RunFolder(root / suite.name / "base", writer=processes.is_main)
    return judge_into(folder, tier, plan, processes, progress)


def base_plan(suite: Suite, tier: TierName) -> Plan:
    """A plan to judge the base model with: any algorithm's, since nothing is trained."""
    fitting = outlines(suite.at_tier(tier))
    if not fitting:
        raise InputError(
            f"no installed algorithm fits {suite.name} with its defaults; add a table [algorithms.prdp] to the suite"
        )
    return fitting[0].open()
