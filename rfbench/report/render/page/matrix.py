"""Every two algorithms of a suite as matrices: one per measure and prompt set, the row's final less the column's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from rfbench.report.analysis.contrasts import turned
from rfbench.report.analysis.pairs import LOWER_IS_BETTER
from rfbench.report.frames import CELL, prompt_set


@dataclass(frozen=True)
class Entry:
    """One difference with its plain interval. `told` is "better" or "worse" where the interval excludes 0."""

    text: str
    detail: str
    told: str
    chance: str  # that a run of the row's algorithm ends above one of the column's


@dataclass(frozen=True)
class Matrix:
    """`rows[algorithm]` has an entry per algorithm of `algorithms`, None for itself; the best stands first."""

    measure: str
    evaluation_set: str
    title: str
    algorithms: list[str]
    rows: dict[str, list[Entry | None]]


def matrices(pairs: pl.DataFrame, digits: dict[str, int]) -> list[Matrix]:
    """One matrix per measure and prompt set of some rows of `pairs.pairs`, in their order."""
    return [_matrix(block, digits) for block in pairs.partition_by(CELL, maintain_order=True)]


def _matrix(block: pl.DataFrame, digits: dict[str, int]) -> Matrix:
    first = block.row(0, named=True)
    places = digits[first["measure"]]
    algorithms = [first["variant"], *block.filter(variant=first["variant"])["other"]]
    entries: dict[tuple[str, str], Entry] = {}
    for row in block.iter_rows(named=True):
        back = turned(row, "difference", "low", "high")
        entries[row["variant"], row["other"]] = _entry(row, row["probability"], places)
        entries[row["other"], row["variant"]] = _entry(row | back, 1 - row["probability"], places)
    title = f"{first['measure']} ({first['role']}), {prompt_set(first)} prompts"
    rows = {name: [entries.get((name, other)) for other in algorithms] for name in algorithms}
    return Matrix(first["measure"], first["evaluation_set"], title, algorithms, rows)


def _entry(row: dict[str, Any], chance: float, digits: int) -> Entry:
    told = ""
    if row["low"] is not None and (row["low"] > 0 or row["high"] < 0):
        told = "better" if (row["low"] > 0) != (row["measure"] in LOWER_IS_BETTER) else "worse"
    detail = "" if row["low"] is None else f"[{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
    return Entry(f"{row['difference']:+.{digits}f}", detail, told, f"{chance:.2f}")
