"""The headline tables: per reward a row per algorithm, its gains with their intervals, who collapsed, and the cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from rfbench.report.frames import decimals, order, prompt_set, suites
from rfbench.report.render.tables import COSTS, cost_cells, markdown_row, plain


def to_markdown(estimates: pl.DataFrame, curves: pl.DataFrame) -> str:
    """Every headline table of `estimates.estimate` and `curves.mean_curves`, under headings."""
    parts = []
    for suite, rows in suites(order(estimates)):
        parts.append(f"## {plain(suite)}: gains over the base model, with 95 % intervals\n")
        found = tables(rows, curves.filter(pl.col("suite") == suite))
        parts += [f"{plain(measure)}:\n\n{table}\n" for measure, table in found]
    return "\n".join(parts)


def tables(rows: pl.DataFrame, curves: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """(reward, its table as Markdown) of one suite's `estimates.estimate`, the training reward first, with its costs.

    Algorithms stand by their gain on the first prompt set. Gains are final less base model, with 95 % intervals over
    seeds and prompts. A run has collapsed if this reward's curve on that prompt set has; the KL from the base model, in
    nats, is on it too. Costs are those of a whole run (`curves.mean_curves`).
    """
    gains = rows.filter(pl.col("role") != "diagnostic", statistic="gain")
    spent = _by_algorithm(curves.group_by("variant", maintain_order=True).last())
    for block in gains.partition_by("measure", maintain_order=True):
        measure, first = block["measure"][0], block["evaluation_set"][0]
        sets = block.unique("evaluation_set", maintain_order=True).to_dicts()
        digits = decimals([block["estimate"]]) - 1
        by_set = {s["evaluation_set"]: _by_algorithm(block.filter(evaluation_set=s["evaluation_set"])) for s in sets}
        collapsed = _by_algorithm(rows.filter(measure=measure, evaluation_set=first, statistic="collapsed"))
        kl = _by_algorithm(rows.filter(measure="kl", evaluation_set=first, statistic="final"))
        costs = COSTS if block["role"][0] == "training" else []
        lines = [["variant", "seeds", *(f"gain, {prompt_set(s)}" for s in sets), "KL, nats", "collapsed", *costs]]
        lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
        for algorithm in sorted(by_set[first], key=lambda name: -by_set[first][name]["estimate"]):
            seeds = collapsed[algorithm]["seeds"]
            cells = [gain_cell(by_set[s["evaluation_set"]].get(algorithm), digits) for s in sets]
            divergence = f"{kl[algorithm]['estimate']:.0f}" if algorithm in kl else "–"
            lost = f"{collapsed[algorithm]['estimate'] * seeds:.0f} of {seeds}"
            lines.append(
                [algorithm, str(seeds), *cells, divergence, lost, *(cost_cells(spent[algorithm]) if costs else [])]
            )
        heading = f"{measure} ({block['role'][0]})"
        yield heading, "\n".join(markdown_row([plain(cell) for cell in line]) for line in lines)


def _by_algorithm(rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["variant"]: row for row in rows.iter_rows(named=True)}


def gain_cell(row: dict[str, Any] | None, digits: int) -> str:
    """A row of `estimates.estimate` as a table shows it, with its interval; a dash for none."""
    if row is None:
        return "–"
    text = f"{row['estimate']:+.{digits}f}"
    return text if row["low"] is None else f"{text} [{row['low']:+.{digits}f}, {row['high']:+.{digits}f}]"
