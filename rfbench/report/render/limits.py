"""Limits of an axis that a collapsed run cannot squash: it leaves the axis, and the reader is told."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

SQUASHED = 0.4  # share of the whole range that the other curves are at least left with
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


def robust(ends: pl.DataFrame, both_ends: bool) -> Limits:
    """Limits for rows of variant, low, high, band_low and band_high: the extent of a curve and of its band.

    A curve leaves the axis where the rest, at least half of them, would have less than `SQUASHED` of it otherwise:
    downwards, or at `both_ends`. Bands widen the axis by `BAND` at most.
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
    """What is left without the fewest, at most `most`, that squash it; None where nothing is squashed."""
    low, high = _span(extents)
    upwards = sorted(extents, key=lambda name: extents[name][0])
    downwards = sorted(extents, key=lambda name: -extents[name][1])
    for count in range(1, most + 1):
        for order in (upwards, downwards) if both_ends else (upwards,):
            rest = {name: extents[name] for name in order[count:]}
            bottom, top = _span(rest)
            if 0 < top - bottom < SQUASHED * (high - low):
                return rest
    return None


def _span(extents: dict[str, Extent]) -> Extent:
    return min(low for low, _ in extents.values()), max(high for _, high in extents.values())


def _padded(low: float, high: float) -> Extent:
    margin = MARGIN * (high - low) or MARGIN * abs(high) or 1.0
    return low - margin, high + margin
