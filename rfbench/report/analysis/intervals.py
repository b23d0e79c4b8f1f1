"""95 % intervals from few seeds, in closed form: the same digits whatever runs are called and however they are ordered.

Values form a table (seeds, prompts). Seeds and prompts are both samples of something larger, so the variance of the
mean is that of two crossed factors (Owen, 2007; Cameron, Gelbach and Miller, 2011): each factor's own, less the noise
of single (seed, prompt) cells that both contain,

    V = s_seeds² / n_seeds + s_prompts² / n_prompts - s_cells² / (n_seeds n_prompts)

with s_seeds and s_prompts the standard deviations (n - 1) of the means per seed and per prompt. It is what resampling
seeds and prompts independently of each other tends to, n / (n - 1) times each factor's bootstrap variance. The interval
is Student's, at the Welch-Satterthwaite degrees of freedom of that sum. For one factor it is Student's interval, for
the difference of two of them Welch's. docs/statistics.md holds the measured coverage.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LEVEL = 0.95
NORMAL_QUANTILE = 1.959963984540054
UNBOUNDED = (-math.inf, math.inf)
ENUMERATED = 9  # seeds up to which every resample is counted: 24,310 for 9
REPLICATES = 20_000  # resamples drawn for more seeds than that
SEED = 20240713


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; the ends are None where a single seed leaves the spread unknown."""

    estimate: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Mean:
    """An estimated mean, or difference of means, with its standard error and the degrees of freedom of that.

    A single seed has no standard error. An error of 0 is that of seeds and prompts that all agree.
    """

    estimate: float
    standard_error: float | None = None
    freedom: float | None = None

    def interval(self, bounds: tuple[float, float] = UNBOUNDED, level: float = LEVEL) -> Interval:
        """Student's interval, cut at the `bounds` of what is possible."""
        if self.standard_error is None or self.freedom is None:
            return Interval(self.estimate)
        reach = student_quantile(self.freedom, level) * self.standard_error if self.standard_error else 0.0
        low, high = (min(max(end, bounds[0]), bounds[1]) for end in (self.estimate - reach, self.estimate + reach))
        return Interval(self.estimate, min(low, self.estimate), max(high, self.estimate))

    @property
    def p_value(self) -> float | None:
        """Two-sided, of the mean being 0."""
        from scipy.special import stdtr

        if self.standard_error is None or self.freedom is None:
            return None
        if self.standard_error == 0:
            return float(self.estimate == 0)
        return 2 * float(stdtr(self.freedom, -abs(self.estimate) / self.standard_error))


def mean(values: Array) -> Mean:
    """The mean of a table (seeds, prompts); a single prompt column counts as fixed."""
    if len(values) < 2:
        return Mean(average(values))
    if values.shape[1] == 1:
        return _combined(average(values), [_factor(values, 1)], (0.0, 0), [])
    return _combined(average(values), [_factor(values, 1)], _factor(values, 0), [_cells(values)])


def difference(a: Array, b: Array) -> Mean:
    """mean(a) - mean(b) of two tables (seeds, prompts) over the same prompts: prompts are paired, seeds are not."""
    estimate = average(a) - average(b)
    if min(len(a), len(b)) < 2:
        return Mean(estimate)
    prompts = a.mean(axis=0) - b.mean(axis=0)
    return _combined(estimate, [_factor(a, 1), _factor(b, 1)], _factor(prompts[None, :], 0), [_cells(a), _cells(b)])


def average(values: Array) -> float:
    """The mean of a table (seeds, prompts), as the mean of its seeds' means."""
    return float(values.mean(axis=1).mean())


Component = tuple[float, int]  # a variance of the mean, and the degrees of freedom it was estimated with


def _combined(estimate: float, seeds: list[Component], prompts: Component, cells: list[Component]) -> Mean:
    added, taken = [*seeds, prompts], cells
    total = sum(v for v, _ in added) - sum(v for v, _ in taken)
    total = max([total, sum(v for v, _ in seeds), prompts[0]])  # an estimate of either factor alone is never undercut
    if math.sqrt(total) <= 1e-12 * max(1.0, abs(estimate)):
        return Mean(estimate, 0.0, float(sum(freedom for _, freedom in seeds)))
    uncertainty = sum(v**2 / freedom for v, freedom in [*added, *taken] if freedom)
    return Mean(estimate, math.sqrt(total), total**2 / uncertainty)


def _factor(values: Array, over: int) -> Component:
    """The variance that the mean owes to one factor; `over` is the axis of the other one."""
    means = values.mean(axis=over)
    n = len(means)
    return (float(means.var(ddof=1)) / n, n - 1) if n > 1 else (0.0, 0)


def _cells(values: Array) -> Component:
    """The variance that the mean owes to its single cells: what rows and columns leave over."""
    seeds, prompts = values.shape
    freedom = (seeds - 1) * (prompts - 1)
    if not freedom:
        return 0.0, 0
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    return float(np.sum(left**2)) / freedom / (seeds * prompts), freedom


def interquartile_mean(values: Array, bounds: tuple[float, float] = UNBOUNDED) -> Interval:
    """Mean of the middle half of one value per seed: a quarter, rounded down, is cut at each end.

    With fewer than 4 seeds it is the mean. Otherwise the interval holds the middle 95 % of all resamples of the seeds,
    each with its probability, stretched about the estimate by Student's quantile over the normal one and by
    sqrt(n / (n - 1)), as n values resampled underestimate their spread by that.
    """
    n = len(values)
    cut = n // 4
    estimate = float(np.sort(values)[cut : n - cut].mean())
    if cut == 0:
        return mean(values[:, None]).interval(bounds)
    indices, weights = resamples(n)
    means = np.sort(values)[indices][:, cut : n - cut].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], weights=weights, method="inverted_cdf")
    stretch = student_quantile(n - 1) / NORMAL_QUANTILE * math.sqrt(n / (n - 1))
    ends = (estimate + stretch * (float(end) - estimate) for end in (low, high))
    low, high = (min(max(end, bounds[0]), bounds[1]) for end in ends)
    return Interval(estimate, low, high)


@lru_cache(maxsize=32)
def resamples(n: int) -> tuple[npt.NDArray[np.int64], Array]:
    """Resamples of n sorted values as sorted indices (resamples, n), and the probability of each.

    All of them up to `ENUMERATED` values: every multiset, with its multinomial probability. Beyond that, fixed draws.
    """
    if n > ENUMERATED:
        drawn = np.random.default_rng(SEED).integers(0, n, size=(REPLICATES, n))
        return np.sort(drawn, axis=1), np.full(REPLICATES, 1 / REPLICATES)
    indices = np.array(list(itertools.combinations_with_replacement(range(n), n)))
    factorial = np.array([math.factorial(i) for i in range(n + 1)], dtype=np.float64)
    repeats = (indices[:, :, None] == np.arange(n)).sum(axis=1)
    return indices, factorial[n] / factorial[repeats].prod(axis=1) / float(n) ** n


def probability_of_improvement(a: Array, b: Array) -> Interval:
    """Chance that a run of `a` ends above a run of `b`: the share of pairs of runs, ties as half (Mann-Whitney's U).

    The interval is Newcombe's (2006, method 5). Unlike a bootstrap it stays honest when every run of one algorithm
    beats every run of the other: three seeds against three then still do not prove certainty.
    """
    wins = (a[:, None] > b[None, :]).mean() + 0.5 * (a[:, None] == b[None, :]).mean()
    if min(len(a), len(b)) < 2:
        return Interval(float(wins))
    return Interval(float(wins), _newcombe(float(wins), len(a), len(b), -1), _newcombe(float(wins), len(a), len(b), 1))


@lru_cache(maxsize=1024)
def _newcombe(wins: float, m: int, n: int, side: int) -> float:
    """The probability theta, on one side of `wins`, from which `wins` lies z standard errors away, by bisection."""
    inner, outer = wins, (1.0 if side > 0 else 0.0)
    for _ in range(60):
        theta = (inner + outer) / 2
        shape = ((m + n) / 2 - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        error = math.sqrt(theta * (1 - theta) * (1 + shape) / (m * n))
        inner, outer = (theta, outer) if abs(theta - wins) < NORMAL_QUANTILE * error else (inner, theta)
    return (inner + outer) / 2


def wilson(successes: int, n: int) -> Interval:
    """A share with Wilson's interval, which is not empty when no run or every run is a success."""
    share, z = successes / n, NORMAL_QUANTILE
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def student_quantile(freedom: float, level: float = LEVEL) -> float:
    """How many standard errors Student's interval reaches to each side."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))
