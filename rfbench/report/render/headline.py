"""The headline tables: per reward a row per algorithm, its gains with their intervals, and how many runs collapsed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from rfbench.report.render.tables import decimals, markdown_row, order, plain, prompt_set, suites


def to_markdown(estimates: pl.DataFrame) -> str:
    """Every headline table of `estimates.estimate`, under headings."""
    parts = []
    for suite, rows in suites(order(estimates)):
        parts.append(f"## {plain(suite)}: gains over the base model, with 95 % intervals\n")
        parts += [f"{plain(measure)}:\n\n{table}\n" for measure, table in tables(rows)]
    return "\n".join(parts)


def tables(rows: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """(reward, its table as Markdown) of one suite's `estimates.estimate`, the training reward first.

    Algorithms stand by their gain on the first prompt set. Gains are final less base model, with 95 % intervals over
    seeds and prompts. A run has collapsed if this reward's curve on that prompt set has; the KL from the base model, in
    nats, is on it too.
    """
    gains = rows.filter(pl.col("role") != "diagnostic", statistic="gain")
    for block in gains.partition_by("measure", maintain_order=True):
        measure, first = block["measure"][0], block["evaluation_set"][0]
        sets = block.unique("evaluation_set", maintain_order=True).to_dicts()
        digits = decimals([block["estimate"]]) - 1
        by_set = {s["evaluation_set"]: _by_algorithm(block.filter(evaluation_set=s["evaluation_set"])) for s in sets}
        collapsed = _by_algorithm(rows.filter(measure=measure, evaluation_set=first, statistic="collapsed"))
        kl = _by_algorithm(rows.filter(measure="kl", evaluation_set=first, statistic="final"))
        lines = [["variant", "seeds", *(f"gain, {prompt_set(s)}" for s in sets), "KL, nats", "collapsed"]]
        lines.append(["---", *["---:"] * (len(sets) + 3)])
        for algorithm in sorted(by_set[first], key=lambda name: -by_set[first][name]["estimate"]):
            seeds = collapsed[algorithm]["seeds"]
            cells = [_gain(by_set[s["evaluation_set"]].get(algorithm), digits) for s in sets]
            divergence = f"{kl[algorithm]['estimate']:.0f}" if algorithm in kl else "–"
            lost = f"{collapsed[algorithm]['estimate'] * seeds:.0f} of {seeds}"
            lines.append([algorithm, str(seeds), *cells, divergence, lost])
        heading = f"{measure} ({block['role'][0]})"
        yield heading, "\n".join(markdown_row([plain(cell) for cell in line]) for line in lines)


def _by_algorithm(rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["variant"]: row for row in rows.iter_rows(named=True)}


def _gain(row: dict[str, Any] | None, digits: int) -> str:
    if row is None:
        return "–"
    text = f"{row['estimate']:+.{digits}f}"
    return text if row["low"] is None else f"{text} [{row['low']:+.{digits}f}, {row['high']:+.{digits}f}]"
