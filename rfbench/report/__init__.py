"""From run folders to a verdict. Reads files only; never imports torch.

>>> from rfbench.report import compare, load
>>> runs = load(["results"])  # polars frames: runs.runs, runs.evals, runs.finals, runs.metrics
>>> comparison = compare(["results"], out="report")
>>> comparison.verdicts  # the answer in plain words, per suite
>>> comparison.table  # polars: a row per suite, measure, prompt set and algorithm
>>> comparison.estimates  # polars: every statistic over seeds, with its 95 % interval
>>> comparison.pairs  # polars: every pair of algorithms
>>> comparison.stability  # polars: every statistic of every run
>>> comparison.to_json()
"""

from rfbench.report.analysis.estimates import estimate, pairs
from rfbench.report.analysis.statistics import stability
from rfbench.report.analysis.verdict import Verdict
from rfbench.report.comparison import Comparison, Plot, analyse
from rfbench.report.load import Problem, Runs, load
from rfbench.report.render.terminal import render, render_comparison
from rfbench.report.render.watch import watch
from rfbench.report.writing import compare

__all__ = [
    "Comparison",
    "Plot",
    "Problem",
    "Runs",
    "Verdict",
    "analyse",
    "compare",
    "estimate",
    "load",
    "pairs",
    "render",
    "render_comparison",
    "stability",
    "watch",
]
