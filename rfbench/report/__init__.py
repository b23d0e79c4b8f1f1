"""From run folders to a verdict. Reads files only; never imports torch.

>>> from rfbench.report import compare, load
>>> runs = load(["results"])  # polars frames: runs.runs, runs.evals, runs.finals, runs.metrics
>>> comparison = compare(["results"], out="report")
>>> comparison.table  # a row per suite, measure, prompt set and algorithm
>>> comparison.stability  # a row per run, measure and prompt set
"""

from rfbench.report.comparison import Comparison, compare
from rfbench.report.load import Problem, Runs, load
from rfbench.report.statistics import stability
from rfbench.report.tables import render

__all__ = ["Comparison", "Problem", "Runs", "compare", "load", "render", "stability"]
