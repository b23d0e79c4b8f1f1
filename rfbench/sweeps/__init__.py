"""A sweep: many runs, each in a process of its own on its own core or GPU, until all are finished.

The folders are the sweep's only state. What is finished there is skipped, what was cut off is resumed, and a run that
fails does not stop the others. So the same command, given again, goes on.
"""

from rfbench.sweeps.costs import estimated_hours, unspent
from rfbench.sweeps.display import Display, render, summary
from rfbench.sweeps.jobs import Job, make_jobs
from rfbench.sweeps.lanes import Lane, Outcome, make_lanes, run_jobs
from rfbench.sweeps.stopwatch import Stopwatch

__all__ = [
    "Display",
    "Job",
    "Lane",
    "Outcome",
    "Stopwatch",
    "estimated_hours",
    "make_jobs",
    "make_lanes",
    "render",
    "run_jobs",
    "summary",
    "unspent",
]
