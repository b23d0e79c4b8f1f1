"""Limits of an axis that a collapsed run cannot squash: it leaves the axis, and the reader is told."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

FAR = 4.0  # how far a curve leaves the others behind to leave the axis, as a share of the range of the others
BAND = 0.25  # how far bands may widen the range, as a share of it, to each side
MARGIN = 0.05

Extent = tuple[float, float]  # the lowest and highest value of one algorithm's curve


class Limits(NamedTuple):
    """An axis from `low` to `high`, those that leave it, and the range of everything."""

    low: float
    high: float
    outside: tuple[str, ...]
    whole: Extent


def of_curves(rows: pl.DataFrame) -> Limits:
    """Limits of `gain` in some rows of `curves.mean_curves`, of one measure on one prompt set.

    A reward's curve leaves the axis downwards only, so that no winner is ever cut off; a diagnostic's at either end.
    """
    ends = rows.group_by("variant").agg(
        pl.col("gain").min().alias("low"),
        pl.col("gain").max().alias("high"),
        pl.col("gain_low").min().alias("band_low"),
        pl.col("gain_high").max().alias("band_high"),
    )
    return robust(ends.sort("variant"), both_ends=rows["role"][0] == "diagnostic")


def of_estimates(rows: pl.DataFrame) -> Limits:
    """Limits of some rows of `estimates.estimate`, of one statistic of one measure: with 0, where they are gains.

    Several prompt sets may share the axis. An estimate of a measure that is better when lower leaves it at either end.
    """
    gain = rows["statistic"][0] == "gain"
    base = pl.lit(0.0) if gain else pl.col("estimate")
    ends = rows.group_by("variant").agg(
        pl.min_horizontal("estimate", base).min().alias("low"),
        pl.max_horizontal("estimate", base).max().alias("high"),
        pl.col("low").min().alias("band_low"),
        pl.col("high").max().alias("band_high"),
    )
    return robust(ends.sort("variant"), both_ends=not gain)


def robust(ends: pl.DataFrame, both_ends: bool) -> Limits:
    """Limits for rows of variant, low, high, band_low and band_high: the extent of a curve and of its band.

    A curve leaves the axis where the others would keep less than a fifth of it: where it lies `FAR` times farther below
    them (or above, at `both_ends`) than they span. At least half of the curves stay. Bands widen the axis by `BAND` at
    most.
    """
    extents = {name: (low, high) for name, low, high in ends.select("variant", "low", "high").iter_rows()}
    kept = _kept(extents, both_ends)
    bands = ends.filter(pl.col("variant").is_in(list(kept)))
    low, high = _span(kept)
    room = (high - low) * BAND
    low = max(min([low, *bands["band_low"].drop_nulls()]), low - room)
    high = min(max([high, *bands["band_high"].drop_nulls()]), high + room)
    outside = tuple(name for name in extents if name not in kept)
    return Limits(*_padded(low, high), outside, _padded(*_span(extents)))


def _kept(extents: dict[str, Extent], both_ends: bool) -> dict[str, Extent]:
    """What stays within the axis, at least half of it."""
    kept, least = extents, (len(extents) + 1) // 2
    while fewer := _freed(kept, len(kept) - least, both_ends):
        kept = fewer
    return kept


def _freed(extents: dict[str, Extent], most: int, both_ends: bool) -> dict[str, Extent] | None:
    """What is left without the fewest, at most `most`, that lie far from the rest; None where none does."""
    upwards = sorted(extents, key=lambda name: extents[name][0])
    downwards = sorted(extents, key=lambda name: -extents[name][1])
    for count in range(1, most + 1):
        for order in (upwards, downwards) if both_ends else (upwards,):
            rest = {name: extents[name] for name in order[count:]}
            bottom, top = _span(rest)
            nearest = extents[order[count - 1]]
            if max(bottom - nearest[0], nearest[1] - top if both_ends else 0.0) > FAR * (top - bottom) > 0:
                return rest
    return None


def _span(extents: dict[str, Extent]) -> Extent:
    return min(low for low, _ in extents.values()), max(high for _, high in extents.values())


def _padded(low: float, high: float) -> Extent:
    margin = MARGIN * (high - low) or MARGIN * abs(high) or 1.0
    return low - margin, high + margin
