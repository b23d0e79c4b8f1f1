"""The page's first lines: a line per suite, and beside each suite what its runs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from rfbench.records.format import RunRecord
from rfbench.report.analysis.contrasts import contenders, judged
from rfbench.report.analysis.pairs import LOWER_IS_BETTER
from rfbench.report.analysis.verdict import Verdict
from rfbench.report.frames import decimals, thousands


@dataclass(frozen=True)
class Line:
    """One suite in a line: `lead` over the next best, and what a run of each of the two cost."""

    suite: str
    outcome: str
    leader: str
    judged_by: str
    lead: str
    interval: str
    second: str
    told: bool
    costs: list[tuple[str, str, str]]  # algorithm, network calls, training seconds
    collapsed: list[str]


def line(verdict: Verdict, estimates: pl.DataFrame, contrasts: pl.DataFrame, curves: pl.DataFrame) -> Line:
    """The line of one suite, of the rows of `estimates`, `contrasts` and `curves` that are its own."""
    finals = contenders(judged(estimates))
    if finals.is_empty():
        return Line(verdict.suite, verdict.short, "", "", "", "", "", False, [], [])
    place = finals.row(0, named=True)
    lower = place["measure"] in LOWER_IS_BETTER
    spec = ".3g" if lower else f".{decimals([finals['estimate']])}f"
    lead, interval, second, told = "", "", "", False
    if contrasts.height:
        row = contrasts.row(0, named=True)
        lead, second, told = f"{row['lead']:+{spec}}", row["other"], bool(row["told"])
        interval = "" if row["low"] is None else f"[{row['low']:{spec}}, {row['high']:{spec}}]"
    by = f"{'lowest ' if lower else ''}{place['measure']}, {place['evaluation_set']} prompts"
    costs = [(name, *cost) for name in finals["variant"][:2] if (cost := spent(curves, name))]
    return Line(
        verdict.suite, verdict.short, place["variant"], by, lead, interval, second, told, costs, collapsed(estimates)
    )


def spent(curves: pl.DataFrame, variant: str) -> tuple[str, str] | None:
    """Network calls (`curves.COMPUTE`) and training seconds of a whole run; None where they were not recorded."""
    ends = curves.filter(pl.col("variant") == variant).sort("epoch").tail(1)
    if ends.is_empty() or ends["compute"][0] is None or ends["seconds"][0] is None:
        return None
    return thousands(ends["compute"][0]), f"{ends['seconds'][0]:,.0f}"


def collapsed(estimates: pl.DataFrame) -> list[str]:
    """'rwr 4 of 4' for every algorithm with a run that collapsed in a training reward, on the first prompt set."""
    trained = estimates.filter(pl.col("role") == "training")
    first = trained["evaluation_set"].head(1)
    rows = trained.filter(pl.col("evaluation_set").is_in(first.implode()), statistic="collapsed").filter(
        pl.col("estimate") > 0
    )
    worst = rows.group_by("variant", maintain_order=True).agg(pl.all().sort_by("estimate").last()).sort("variant")
    return [
        f"{row['variant']} {round(row['estimate'] * row['seeds'])} of {row['seeds']}"
        for row in worst.iter_rows(named=True)
    ]


def facts(records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """(what, value) of what the runs of one suite are: budget, seeds, suite hash, commits, dates, versions, device."""
    budgets = _each(_budget(record) for record in records)
    days = sorted(record.updated_at[:10] for record in records)
    commits = _each(sorted(str(record.git_commit or "unknown")[:7] for record in records))
    versions = _each(sorted(str(record.versions.get("rfbench", "unknown")) for record in records))
    seeds = sorted({record.seed for record in records})
    return [
        ("budget", budgets),
        ("seeds", f"{len(seeds)} ({', '.join(map(str, seeds[:8]))}{', …' if len(seeds) > 8 else ''})"),
        ("suite hash", _each(sorted(record.suite_hash for record in records))),
        ("rfbench", f"{versions}, commit {commits}"),
        ("runs ended", days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"),
        ("device", _each(sorted(record.device for record in records))),
    ]


def _budget(record: RunRecord) -> str:
    per_epoch: Any = record.suite.get("budget", {}).get("reward_queries_per_epoch")
    if not isinstance(per_epoch, int):
        return f"{record.counters.reward_queries:,} reward queries"
    return f"{per_epoch * record.epochs:,} reward queries: {per_epoch:,} in each of {record.epochs:,} epochs"


def _each(values: Any, most: int = 4) -> str:
    """Every value once, in the order of the first."""
    found = list(dict.fromkeys(values))
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
