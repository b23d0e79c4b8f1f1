"""The table beside the verdict: who gained what, drawn as intervals on a common axis, and what a run cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from rfbench.report.analysis.contrasts import judged, ranked
from rfbench.report.analysis.pairs import LOWER_IS_BETTER
from rfbench.report.frames import decimals, prompt_set
from rfbench.report.render.limits import of_estimates
from rfbench.report.render.page.overview import spent

MOST_SETS = 2  # prompt sets of what a suite is judged by


@dataclass(frozen=True)
class Bar:
    """An estimate with its 95 % interval; places are percent of the cell's width, `out` where a part lies beyond it."""

    text: str
    detail: str
    at: float
    low: float | None
    high: float | None
    out: str


@dataclass(frozen=True)
class BarColumn:
    """One measure on one prompt set. `zero` is the place of the base model, None where it has none."""

    measure: str
    of: str
    zero: float | None


@dataclass(frozen=True)
class Standing:
    variant: str
    seeds: int
    bars: list[Bar | None]
    kl: str
    collapsed: str
    calls: str
    seconds: str


@dataclass(frozen=True)
class Standings:
    columns: list[BarColumn]
    rows: list[Standing]


def standings(estimates: pl.DataFrame, curves: pl.DataFrame) -> Standings:
    """One suite's algorithms, the best first, of the rows of `estimates.estimate` and `curves.mean_curves`.

    The columns: what the suite is judged by on its first prompt sets, and the first held-out reward. Gains over the
    base model; of a measure that is better when lower, the final value.
    """
    finals = ranked(judged(estimates))
    if finals.is_empty():
        return Standings([], [])
    shown = list(_shown(estimates, finals.row(0, named=True)))
    drawn = [_bars(block) for block in shown]
    first_set = pl.col("evaluation_set") == finals["evaluation_set"][0]
    kl = _by_variant(estimates.filter(first_set, measure="kl", statistic="final"))
    trained = estimates.filter(first_set, role="training", statistic="collapsed")
    lost = _by_variant(trained.sort("estimate"))
    rows = []
    for variant, seeds in finals.select("variant", "seeds").iter_rows():
        cost = spent(curves, variant) or ("–", "–")
        fell = lost.get(variant)
        rows.append(
            Standing(
                variant,
                seeds,
                [bars.get(variant) for _, bars in drawn],
                _nats(kl[variant]["estimate"]) if variant in kl else "–",
                "–" if fell is None else f"{round(fell['estimate'] * fell['seeds'])} of {fell['seeds']}",
                *cost,
            )
        )
    return Standings([column for column, _ in drawn], rows)


def _shown(estimates: pl.DataFrame, place: dict[str, Any]) -> Iterator[pl.DataFrame]:
    statistic = "final" if place["measure"] in LOWER_IS_BETTER else "gain"
    main = estimates.filter(measure=place["measure"], statistic=statistic)
    yield from main.partition_by("evaluation_set", maintain_order=True)[:MOST_SETS]
    held_out = estimates.filter(role="held-out", statistic="gain", evaluation_set=place["evaluation_set"])
    yield from held_out.partition_by("measure", maintain_order=True)[:1]


def _bars(block: pl.DataFrame) -> tuple[BarColumn, dict[str, Bar]]:
    first = block.row(0, named=True)
    gain = first["statistic"] == "gain"
    low, high, outside, _ = of_estimates(block)
    digits = max(0, decimals([block.filter(~pl.col("variant").is_in(list(outside)))["estimate"]]) - 1)

    def place(value: float) -> float:
        return round(min(max(100 * (value - low) / (high - low), 0.0), 100.0), 2)

    bars = {}
    for row in block.iter_rows(named=True):
        sign = "+" if gain else ""
        detail = "" if row["low"] is None else f"[{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
        ends = [None if row[end] is None else place(row[end]) for end in ("low", "high")]
        out = "below" if row["estimate"] < low else "above" if row["estimate"] > high else ""
        text = f"{row['estimate']:{sign}.{digits}f}"
        bars[row["variant"]] = Bar(text, detail, place(row["estimate"]), ends[0], ends[1], out)
    name = "final" if not gain else "gain"
    of = f"{name}, {prompt_set(first)} prompts"
    return BarColumn(f"{first['measure']} ({first['role']})", of, place(0.0) if gain else None), bars


def _nats(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _by_variant(rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["variant"]: row for row in rows.iter_rows(named=True)}
