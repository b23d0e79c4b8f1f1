"""The short table: what each algorithm gained on each reward and prompt set, and what that cost."""

from __future__ import annotations

import polars as pl

from rfbench.report.analysis.curves import COSTS
from rfbench.report.frames import CELL, order

SHOWN = ["start", "best", "final", "drawdown"]


def summarise(stability: pl.DataFrame, estimates: pl.DataFrame, curves: pl.DataFrame) -> pl.DataFrame:
    """One row per suite, measure, prompt set and algorithm, those that end highest first. Rewards only.

    Mean over seeds of each of `SHOWN`, with `<statistic>_spread`, their standard deviation (n - 1) over seeds, null for
    a single seed; `gain` with the 95 % interval of `estimates`; and `curves.COSTS`, what a whole run spent.
    """
    key = [*CELL, "variant"]
    means = [pl.col(name).mean() for name in SHOWN]
    spreads = [pl.col(name).std().alias(f"{name}_spread") for name in SHOWN]
    rewards = stability.filter(pl.col("role") != "diagnostic")
    table = rewards.group_by(key, maintain_order=True).agg(pl.len().alias("seeds"), *means, *spreads)
    gains = estimates.filter(pl.col("statistic") == "gain").select(
        *key, pl.col("estimate").alias("gain"), pl.col("low").alias("gain_low"), pl.col("high").alias("gain_high")
    )
    spent = curves.group_by(key, maintain_order=True).agg(pl.col(*COSTS).last())
    table = table.join(gains, on=key, nulls_equal=True).join(spent, on=key, nulls_equal=True)
    columns = [*key, "seeds", *(column for name in SHOWN for column in (name, f"{name}_spread"))]
    columns += ["gain", "gain_low", "gain_high", *COSTS]
    return order(table, pl.col("final"), descending=True).select(columns)
