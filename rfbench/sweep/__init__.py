"""A sweep: many runs, each in a process of its own on its own core or GPU, until all are finished.

The folders are the sweep's only state. What is finished there is skipped, what was cut off is resumed, and a run that
fails does not stop the others. So the same command, given again, goes on.
"""

from rfbench.sweep.costs import estimated_hours, unspent
from rfbench.sweep.display import Display, render, summary
from rfbench.sweep.jobs import Job, make_jobs
from rfbench.sweep.lanes import Lane, Outcome, make_lanes, run_jobs
from rfbench.sweep.stopwatch import Stopwatch

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
