"""What a sweep has still to spend: its dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from rfbench.inference.timing import measure
from rfbench.planning.plan import Totals
from rfbench.sweeps.jobs import Job
from rfbench.sweeps.local import Lane


def unspent(job: Job) -> Totals:
    """The share of a run that its remaining epochs are."""
    record, totals = job.record(), job.plan.totals()
    return totals if record is None else totals.part(1 - record.epoch / record.epochs)


def estimated_hours(left: Mapping[Job, Totals], lanes: Sequence[Lane]) -> float:
    """Hours of network calls on ``lanes`` for what each job has ``left``.

    Each suite's model is timed on a lane's number of threads.
    """
    torch.set_num_threads(lanes[0].threads)
    speeds = {suite: measure(plan) for suite, plan in {job.suite: job.plan for job in left}.items()}
    return sum(speeds[job.suite].seconds(totals) for job, totals in left.items()) / len(lanes) / 3600
