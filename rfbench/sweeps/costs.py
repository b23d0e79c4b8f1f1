"""What a sweep has still to spend: its dry run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from rfbench.inference.timing import measure, worth_timing
from rfbench.planning.arithmetic import Arithmetic, arithmetic
from rfbench.planning.chunk_size import settled_here
from rfbench.planning.plan import Totals
from rfbench.sweeps.jobs import Job
from rfbench.sweeps.local import Lane


def unspent(job: Job) -> Totals:
    """The share of a run that its remaining epochs are."""
    record, totals = job.record(), job.plan.totals()
    return totals if record is None else totals.part(1 - record.epoch / record.epochs)


def arithmetics(jobs: Iterable[Job]) -> dict[str, Arithmetic | None]:
    """What a network call of each suite takes; None where it cannot be told."""
    return {suite: arithmetic(settled_here(plan)) for suite, plan in {job.suite: job.plan for job in jobs}.items()}


def left_flops(left: Mapping[Job, Totals], counted: Mapping[str, Arithmetic | None]) -> float | None:
    """Operations of what each job has ``left``; None where not every network fills a GPU."""
    flops = 0.0
    for job, totals in left.items():
        arithmetic_here = counted[job.suite]
        if arithmetic_here is None or not arithmetic_here.fills_a_gpu:
            return None
        flops += arithmetic_here.flops(totals)
    return flops


def estimated_hours(
    left: Mapping[Job, Totals], counted: Mapping[str, Arithmetic | None], lanes: Sequence[Lane]
) -> float | None:
    """Hours of network calls on ``lanes`` for what each job has ``left``; None where timing them would be slow.

    Each suite's model is timed on a lane's number of threads.
    """
    if not all(worth_timing(each) for each in counted.values()):
        return None
    torch.set_num_threads(lanes[0].threads)
    speeds = {suite: measure(plan) for suite, plan in {job.suite: job.plan for job in left}.items()}
    return sum(speeds[job.suite].seconds(totals) for job, totals in left.items()) / len(lanes) / 3600
