"""Every two algorithms against each other, with plain 95 % intervals: at equal reward queries and at equal compute."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl

from rfbench.report.analysis import bounds, intervals
from rfbench.report.analysis.curves import Cell, Curve, Curves, table, tables
from rfbench.report.frames import CELL, order

LOWER_IS_BETTER = {"regret"}  # the diagnostic of a world whose optimum is known
COLUMNS = {
    **dict.fromkeys(("difference", "low", "high", "standard_error", "freedom", "p"), pl.Float64()),
    **dict.fromkeys(("probability", "probability_low", "probability_high"), pl.Float64()),
    **dict.fromkeys(("equal_compute", "equal_difference", "equal_low", "equal_high"), pl.Float64()),
}


def pairs(curves: Curves) -> pl.DataFrame:
    """One row per suite, measure, prompt set and two algorithms, the one that ends better first.

    difference: final of `variant` less final of `other`, prompts paired, with its plain 95 % interval over seeds and
    prompts, its standard error, degrees of freedom and p value. probability: the chance that a run of `variant` ends
    above a run of `other`. equal_difference: the same difference when each has spent `equal_compute`, the lower total
    of the two (`Curve.compute`); null where that was not recorded. Diagnostics are left out, but for the regret.
    """
    cells: dict[tuple[Any, ...], list[tuple[Cell, list[Curve]]]] = {}
    for cell, runs in curves:
        if cell["role"] != "diagnostic" or cell["measure"] in LOWER_IS_BETTER:
            cells.setdefault(tuple(cell[column] for column in CELL), []).append((cell, runs))
    rows = [
        {column: cell[column] for column in CELL}
        | {"variant": cell["variant"], "other": other["variant"]}
        | _row(cell, a, b)
        for algorithms in cells.values()
        for (cell, a), (other, b) in itertools.combinations(sorted(algorithms, key=_place), 2)
    ]
    schema: dict[str, pl.DataType] = dict.fromkeys((*CELL, "variant", "other"), pl.String())
    frame = pl.DataFrame(rows, schema={**schema, "seen": pl.Boolean(), **COLUMNS})
    return order(frame.with_row_index("rank"), pl.col("rank")).drop("rank")


def _place(algorithm: tuple[Cell, list[Curve]]) -> tuple[float, str]:
    cell, runs = algorithm
    final = intervals.average(table(runs))
    return final if cell["measure"] in LOWER_IS_BETTER else -final, cell["variant"]


def _row(cell: Cell, a: list[Curve], b: list[Curve]) -> dict[str, float | None]:
    limits = bounds.of_difference(bounds.of_measure(cell))
    found = intervals.difference(*tables(a, b))
    interval = found.interval(limits)
    chance = intervals.probability_of_improvement(*(np.array([curve.means[-1] for curve in runs]) for runs in (a, b)))
    row = {"difference": found.estimate, "low": interval.low, "high": interval.high}
    row |= {"standard_error": found.standard_error, "freedom": found.freedom, "p": found.p_value}
    row |= {"probability": chance.estimate, "probability_low": chance.low, "probability_high": chance.high}
    compute = float(np.min([np.mean([curve.compute[-1] for curve in runs]) for runs in (a, b)]))  # NaN where one is
    if np.isnan(compute) or min(len(curve.epochs) for curve in (*a, *b)) < 2:
        return row
    equal = intervals.difference(
        *tables([curve.at_compute(compute) for curve in a], [curve.at_compute(compute) for curve in b])
    ).interval(limits)
    return row | {
        "equal_compute": compute,
        "equal_difference": equal.estimate,
        "equal_low": equal.low,
        "equal_high": equal.high,
    }
