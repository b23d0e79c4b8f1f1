"""From run folders to a verdict. Reads files only; never imports torch.

>>> from rfbench.report import analyse, load, write
>>> runs = load(["results"])  # polars frames: runs.runs, runs.evals, runs.metrics
>>> comparison = analyse(["results"])  # writes nothing and draws nothing
>>> comparison.verdicts  # the answer in plain words, per suite
>>> comparison.table  # polars: a row per suite, measure, prompt set and algorithm
>>> comparison.curves  # polars: rewards and costs, epoch by epoch
>>> comparison.estimates  # polars: every statistic over seeds, with its 95 % interval
>>> comparison.contrasts  # polars: what the verdict compares, corrected for their number
>>> comparison.pairs  # polars: every pair of algorithms
>>> comparison.stability  # polars: every statistic of every run
>>> comparison.to_json()
>>> write(comparison, "report", html="report.html").files
"""

from rfbench.report.analysis.verdict import Verdict
from rfbench.report.comparison import Comparison, analyse
from rfbench.report.lines import Problem
from rfbench.report.load import Runs, load
from rfbench.report.render.page import Plot
from rfbench.report.render.terminal import render_comparison
from rfbench.report.render.watch import watch
from rfbench.report.writing import Written, write

__all__ = [
    "Comparison",
    "Plot",
    "Problem",
    "Runs",
    "Verdict",
    "Written",
    "analyse",
    "load",
    "render_comparison",
    "watch",
    "write",
]
