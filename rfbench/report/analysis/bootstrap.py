"""95 % intervals from few seeds: a bootstrap that knows how few there are.

Values form a table (seeds, prompts). Seeds and prompts are both samples of something larger, so both are drawn again,
with replacement and independently of each other (the crossed, or pigeonhole, bootstrap of Owen, 2007). With a handful
of seeds the plain percentile interval is too short: resampling n values underestimates their variance by (n − 1) / n,
and a normal quantile ignores that the spread itself was estimated. So the percentile interval is stretched about the
estimate, by

    stretch = t(df) · sqrt(V) / (z · sd)

where sd is the spread of the joint replicates, z the normal quantile, V the sum of each factor's own bootstrap variance
times n / (n − 1), less the noise of single (seed, prompt) cells that both factors count, and t Student's quantile at
the Welch-Satterthwaite degrees of freedom of that sum. For the mean of one factor this is close to Student's interval;
it keeps the asymmetry of the replicates, and it covers two factors and two samples alike. docs/statistics.md holds the
measured coverage. Draws are seeded: the same bytes on every call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

REPLICATES = 2000
TAIL = 0.025
NORMAL_QUANTILE = 1.959963984540054
SEED = 20240713


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; the ends are None where a single seed leaves the spread unknown."""

    estimate: float
    low: float | None = None
    high: float | None = None


def mean_interval(values: Array) -> Interval:
    """The mean of a table (seeds, prompts); a single prompt column counts as fixed."""
    seeds, prompts = values.shape
    estimate = float(values.mean())
    if seeds < 2:
        return Interval(estimate)
    by_seed, by_prompt = weights(seeds, 0), weights(prompts, 1)
    joint = _resampled_means(values, by_seed, by_prompt)
    factors = [(by_seed @ values.mean(axis=1), seeds)]
    if prompts > 1:
        factors.append((by_prompt @ values.mean(axis=0), prompts))
    return stretched(estimate, joint, factors, cell_variance(values))


def statistic_interval(values: Array, statistic: Callable[[Array], Array]) -> Interval:
    """A statistic of one value per seed. `statistic` maps (…, seeds) to (…)."""
    estimate = float(statistic(values))
    if len(values) < 2:
        return Interval(estimate)
    replicates = statistic(values[draws(len(values), 0)])
    return stretched(estimate, replicates, [(replicates, len(values))])


def difference_interval(a: Array, b: Array) -> Interval:
    """mean(a) − mean(b) of two tables (seeds, prompts) over the same prompts: prompts are paired, seeds are not."""
    estimate = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return Interval(estimate)
    by_a, by_b, by_prompt = weights(len(a), 0), weights(len(b), 2), weights(a.shape[1], 1)
    joint = _resampled_means(a, by_a, by_prompt) - _resampled_means(b, by_b, by_prompt)
    factors = [(by_a @ a.mean(axis=1), len(a)), (by_b @ b.mean(axis=1), len(b))]
    if a.shape[1] > 1:
        factors.append((by_prompt @ (a.mean(axis=0) - b.mean(axis=0)), a.shape[1]))
    return stretched(estimate, joint, factors, cell_variance(a) + cell_variance(b))


def stretched(estimate: float, joint: Array, factors: list[tuple[Array, int]], counted_twice: float = 0.0) -> Interval:
    """The percentile interval of `joint` about `estimate`, stretched; `factors`: one factor's replicates and its n."""
    spread = float(joint.std())
    variances = [float(np.var(replicates)) * n / (n - 1) for replicates, n in factors]
    if spread <= 1e-12 * max(1.0, abs(estimate)) or not any(variances):
        return Interval(estimate, estimate, estimate)
    freedom = sum(variances) ** 2 / sum(v**2 / (n - 1) for v, (_, n) in zip(variances, factors, strict=True))
    total = max([*variances, sum(variances) - counted_twice])
    stretch = student_quantile(freedom) * math.sqrt(total) / (NORMAL_QUANTILE * spread)
    low, high = np.quantile(joint, [TAIL, 1 - TAIL])
    return Interval(
        estimate, estimate - stretch * (estimate - float(low)), estimate + stretch * (float(high) - estimate)
    )


def _resampled_means(values: Array, by_seed: Array, by_prompt: Array) -> Array:
    """Mean of each crossed resample; a matrix product only where its threads are worth starting."""
    return np.asarray(np.einsum("bs,bp,sp->b", by_seed, by_prompt, values, optimize=values.size > 4096))


def cell_variance(values: Array) -> float:
    """Variance that the mean of a table (seeds, prompts) owes to its single cells: what rows and columns leave over."""
    seeds, prompts = values.shape
    if prompts < 2:
        return 0.0
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    return float(np.sum(left**2)) / ((seeds - 1) * (prompts - 1)) / (seeds * prompts)


def interquartile_mean(values: Array) -> Array:
    """Mean of the middle half along the last axis: a quarter, rounded down, is cut at each end."""
    cut = values.shape[-1] // 4
    kept = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut]
    return np.asarray(kept.mean(axis=-1))


def probability_of_improvement(a: Array, b: Array) -> Interval:
    """Chance that a run of `a` ends above a run of `b`: the share of pairs of runs, ties as half (Mann-Whitney's U).

    The interval is Newcombe's (2006, method 5). Unlike a bootstrap it stays honest when every run of one algorithm
    beats every run of the other: three seeds against three then still do not prove certainty.
    """
    wins = (a[:, None] > b[None, :]).mean() + 0.5 * (a[:, None] == b[None, :]).mean()
    if min(len(a), len(b)) < 2:
        return Interval(float(wins))
    return Interval(float(wins), _newcombe(float(wins), len(a), len(b), -1), _newcombe(float(wins), len(a), len(b), 1))


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


def student_quantile(freedom: float) -> float:
    """Student's t quantile at 97.5 %."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - TAIL))


@lru_cache(maxsize=32)
def draws(n: int, stream: int) -> npt.NDArray[np.int64]:
    """Indices (replicates, n) drawn with replacement; `stream` keeps factors independent."""
    return np.random.default_rng([SEED, stream]).integers(0, n, size=(REPLICATES, n))


@lru_cache(maxsize=32)
def weights(n: int, stream: int) -> Array:
    """Each index's share (replicates, n) of those draws."""
    drawn = draws(n, stream) + n * np.arange(REPLICATES)[:, None]
    return np.bincount(drawn.ravel(), minlength=REPLICATES * n).reshape(REPLICATES, n) / n
