"""Intervals: against scipy, by hand, and by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from rfbench.report.analysis import intervals


def mean_interval(values: np.ndarray) -> intervals.Interval:
    return intervals.mean(values).interval()


def difference_interval(a: np.ndarray, b: np.ndarray) -> intervals.Interval:
    return intervals.difference(a, b).interval()


def coverage(draw: object, truth: float, interval: object, repeats: int = 1000) -> float:
    generator = np.random.default_rng(7)
    hits = 0
    for _ in range(repeats):
        found = interval(*draw(generator))  # type: ignore[operator]
        hits += found.low <= truth <= found.high
    return hits / repeats


def seeds_only(generator: np.random.Generator) -> tuple[np.ndarray]:
    return (generator.normal(size=(10, 1)),)


def crossed(seed_spread: float, prompt_spread: float, cell_spread: float, seeds: int = 10) -> object:
    def draw(generator: np.random.Generator) -> tuple[np.ndarray]:
        rows = seed_spread * generator.normal(size=(seeds, 1))
        columns = prompt_spread * generator.normal(size=(1, 30))
        return (rows + columns + cell_spread * generator.normal(size=(seeds, 30)),)

    return draw


def two_algorithms(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    shared = generator.normal(size=(1, 30))
    a, b = (shared + crossed(0.3, 0.3, 1.0)(generator)[0] for _ in range(2))  # type: ignore[operator]
    return a, b


@pytest.mark.parametrize(
    ("draw", "interval"),
    [
        (seeds_only, mean_interval),
        (crossed(1.0, 1.0, 1.0), mean_interval),
        (crossed(0.2, 1.0, 1.0), mean_interval),
        (crossed(1.0, 0.2, 0.5), mean_interval),
        (two_algorithms, difference_interval),
    ],
    ids=["seeds", "seeds and prompts", "mostly prompts", "mostly seeds", "difference of two algorithms"],
)
def test_95_percent_intervals_cover_93_to_97_percent_with_10_seeds(draw: object, interval: object) -> None:
    assert 0.93 <= coverage(draw, 0.0, interval) <= 0.97


def test_with_3_seeds_the_interval_is_still_not_too_short() -> None:
    assert coverage(lambda g: (g.normal(size=(3, 1)),), 0.0, mean_interval) >= 0.93


def test_for_one_factor_it_is_students_interval() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=10)
    found = intervals.mean(values[:, None])
    low, high = stats.t.interval(0.95, 9, loc=values.mean(), scale=stats.sem(values))
    assert (found.estimate, *vars(found.interval()).values()) == pytest.approx(
        (values.mean(), values.mean(), low, high)
    )
    assert found.p_value == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)


def test_for_the_difference_of_one_factor_it_is_welchs() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(3.0, 2.0, size=7), generator.normal(2.0, 0.5, size=4)
    expected = stats.ttest_ind(a, b, equal_var=False)
    found = intervals.difference(a[:, None], b[:, None])
    low, high = expected.confidence_interval(0.95)
    assert (found.interval().low, found.interval().high) == pytest.approx((low, high))
    assert (found.freedom, found.p_value) == pytest.approx((expected.df, expected.pvalue))


def test_the_standard_error_of_two_factors_is_that_of_their_bootstrap() -> None:
    """Seeds and prompts resampled independently: the variance without single cells' is what 40,000 resamples have."""
    generator = np.random.default_rng(1)
    seeds, prompts = 40, 60
    table = generator.normal(size=(seeds, 1)) + generator.normal(size=(1, prompts))
    table += 0.1 * generator.normal(size=(seeds, prompts))
    rows = generator.integers(0, seeds, (40_000, seeds))
    columns = generator.integers(0, prompts, (40_000, prompts))
    weights = np.stack([np.bincount(r, minlength=seeds) for r in rows]) / seeds
    counts = np.stack([np.bincount(c, minlength=prompts) for c in columns]) / prompts
    replicates = np.einsum("bs,bp,sp->b", weights, counts, table, optimize=True)
    assert intervals.mean(table).standard_error == pytest.approx(replicates.std(), rel=0.04)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_few_seeds_are_resampled_in_every_way_there_is(n: int) -> None:
    indices, weights = intervals.resamples(n)
    everything = np.sort(np.array(list(itertools.product(range(n), repeat=n))), axis=1) if n < 8 else None
    assert weights.sum() == pytest.approx(1.0)
    assert len(indices) == math.comb(2 * n - 1, n)
    if everything is not None:
        drawn, counts = np.unique(everything, axis=0, return_counts=True)
        assert (drawn == indices).all()
        assert counts / n**n == pytest.approx(weights)


def test_the_order_of_seeds_and_prompts_moves_no_end() -> None:
    generator = np.random.default_rng(2)
    a, b = generator.normal(size=(5, 20)), generator.normal(size=(4, 20))
    shuffled = generator.permutation(20)
    again = difference_interval(a[::-1][:, shuffled], b[[2, 0, 3, 1]][:, shuffled])
    assert vars(again) == pytest.approx(vars(difference_interval(a, b)), rel=1e-12)


def test_one_seed_has_an_estimate_and_no_interval() -> None:
    assert mean_interval(np.ones((1, 5))) == intervals.Interval(1.0, None, None)
    assert difference_interval(np.ones((1, 5)), np.zeros((3, 5))).low is None
    assert intervals.probability_of_improvement(np.array([1.0]), np.array([0.0])).low is None


def test_equal_seeds_give_a_point() -> None:
    assert mean_interval(np.full((3, 1), 0.5)) == intervals.Interval(0.5, 0.5, 0.5)


@pytest.mark.parametrize("n", [1, 3, 4, 7, 12])
def test_interquartile_mean_is_scipys_trimmed_mean(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    assert intervals.interquartile_mean(values).estimate == pytest.approx(stats.trim_mean(values, 0.25))


def test_interquartile_mean_by_hand() -> None:
    assert intervals.interquartile_mean(np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0])).estimate == 3.5


def test_probability_of_improvement_is_mann_whitneys_u() -> None:
    generator = np.random.default_rng(3)
    a, b = generator.integers(0, 6, 8).astype(float), generator.integers(0, 6, 5).astype(float)
    expected = stats.mannwhitneyu(a, b).statistic / (8 * 5)
    assert intervals.probability_of_improvement(a, b).estimate == pytest.approx(expected)


def test_three_wins_of_three_are_not_certainty() -> None:
    found = intervals.probability_of_improvement(np.array([4.0, 5.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    assert (found.estimate, found.low, found.high) == pytest.approx((1.0, 0.501, 1.0), abs=0.001)
    mirrored = intervals.probability_of_improvement(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]))
    assert mirrored.high == pytest.approx(0.499, abs=0.001)


def test_wilson_is_scipys() -> None:
    expected = stats.binomtest(1, 5).proportion_ci(method="wilson")
    found = intervals.wilson(1, 5)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.2, expected.low, expected.high))
