"""The page's sortable tables: each cell is its text and the value that it sorts by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from rfbench.report.analysis.paper import SOURCE
from rfbench.report.frames import CELL, decimals, order, prompt_set
from rfbench.report.render.tables import PAPER_HEADINGS, paper_cells

if TYPE_CHECKING:
    from rfbench.report.comparison import Comparison

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """`value` is what the cell sorts by, where that is not its text; `algorithm` gives it the algorithm's mark.

    `detail` stands behind the text, less loud: the interval.
    """

    text: str
    value: float | None = None
    algorithm: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Column:
    heading: str
    meaning: str = ""
    numeric: bool = True
    long: bool = False


@dataclass(frozen=True)
class Line:
    """A table's row. `measure` and `evaluation_set` are what the page's filters go by; empty: none hides it."""

    cells: list[Cell]
    measure: str = ""
    evaluation_set: str = ""


@dataclass(frozen=True)
class PageTable:
    title: str
    note: str
    columns: list[Column]
    rows: list[Line]


REWARD = Column("reward", "the measure, and whether it was trained on", False)
PROMPTS = Column("evaluation_set", "the prompt set, and whether training drew from it", False)
ALGORITHM = Column("variant", "", False)
SEEDS = Column("seeds", "finished runs, one per seed")


def suite_tables(found: Comparison, suite: str) -> list[PageTable]:
    """Every table of one suite that has rows."""
    here = pl.col("suite") == suite
    estimates = found.estimates.filter(here)
    rewards = estimates.filter(pl.col("role") != "diagnostic")
    stability = found.stability.filter(here)
    digits = digits_by_measure(estimates)
    tables = [
        _results(rewards, stability, digits),
        _stability(rewards, digits),
        _hacking(found.hacking.filter(here), digits),
        _unseen(found.seen_unseen.filter(here), digits),
        _diagnostics(estimates.filter(pl.col("role") == "diagnostic"), digits),
        _paper(found.paper.filter(here)),
    ]
    return [table for table in tables if table.rows]


def _results(rewards: pl.DataFrame, stability: pl.DataFrame, digits: dict[str, int]) -> PageTable:
    starts = stability.group_by("measure", "evaluation_set", "variant").agg(pl.col("start").mean())
    start = {(m, p, a): value for m, p, a, value in starts.iter_rows()}
    rows = []
    for row, statistics in _by_algorithm(rewards):
        places = digits[row["measure"]]
        cells = [
            *_place(row),
            Cell(str(statistics["final"]["seeds"]), statistics["final"]["seeds"]),
            _number(start[row["measure"], row["evaluation_set"], row["variant"]], places),
            _interval(statistics["final"], places),
            _interval(statistics["gain"], places, "+"),
            _interval(statistics["final_iqm"], places),
            _interval(statistics["best"], places),
            _interval(statistics["area"], places, "+") if "area" in statistics else Cell("–"),
        ]
        rows.append(Line(cells, row["measure"], row["evaluation_set"]))
    columns = [
        *(ALGORITHM, REWARD, PROMPTS, SEEDS),
        Column("base", "the base model: the evaluation at epoch 0, mean over seeds"),
        Column("final", "mean of the last evaluation over seeds and prompts"),
        Column("gain", "final less base"),
        Column("final, middle half", "interquartile mean: the mean of the middle half of the runs' final values"),
        Column("best", "mean over seeds of the highest evaluation"),
        Column("area", "mean height of the curve above its start, over reward queries"),
    ]
    return PageTable("Rewards", "In brackets: 95 % intervals over seeds and prompts.", columns, rows)


def _stability(rewards: pl.DataFrame, digits: dict[str, int]) -> PageTable:
    rows = []
    for row, statistics in _by_algorithm(rewards):
        places = digits[row["measure"]]
        collapsed = statistics["collapsed"]
        count = round(collapsed["estimate"] * collapsed["seeds"])
        cells = [
            *_place(row),
            Cell(f"{count} of {collapsed['seeds']}", collapsed["estimate"]),
            _interval(statistics["drawdown"], places),
            _interval(statistics.get("drawdown_share"), 2),
            _interval(statistics["epochs_below_base"], 0),
            _interval(statistics.get("volatility"), places),
            _reached(statistics.get("queries_to_threshold"), collapsed["seeds"]),
            _reached(statistics.get("seconds_to_threshold"), collapsed["seeds"]),
        ]
        rows.append(Line(cells, row["measure"], row["evaluation_set"]))
    columns = [
        *(ALGORITHM, REWARD, PROMPTS),
        Column(
            "collapsed",
            "runs that ended with half of their gain, or their base model's level, lost by more than 3 standard errors",
        ),
        Column("largest drop", "the farthest a run fell below its best so far"),
        Column("share of gain", "largest drop as a share of the best gain; above 1 the run fell below the base model"),
        Column("epochs below base", "epochs spent below the base model"),
        Column("volatility", "standard deviation of the change from one evaluation to the next"),
        Column("queries to half", "reward queries until half of the best algorithm's final gain is reached"),
        Column("seconds to half", "training seconds until then, evaluation not counted; depends on the device"),
    ]
    return PageTable("Stability", "Means over seeds, with 95 % intervals.", columns, rows)


def _hacking(hacking: pl.DataFrame, digits: dict[str, int]) -> PageTable:
    rows = []
    for row in hacking.iter_rows(named=True):
        trained = {key: row[f"{key}_training"] for key in ("estimate", "low", "high")}
        cells = [
            Cell(row["variant"], algorithm=True),
            Cell(prompt_set(row)),
            Cell(row["measure_training"]),
            _interval(trained, digits[row["measure_training"]], "+"),
            Cell(row["measure"]),
            _interval(row, digits[row["measure"]], "+"),
            Cell(row["verdict"]),
        ]
        rows.append(Line(cells, "", row["evaluation_set"]))
    columns = [
        *(ALGORITHM, PROMPTS),
        Column("trained on", "", False),
        Column("gain", "gain on the training reward"),
        Column("held out", "a reward that training never sees", False),
        Column("held-out gain", "gain on it"),
        Column("verdict", "hacked: the training reward rose and the held-out one fell, both beyond noise", False),
    ]
    return PageTable(
        "Is the reward being hacked?", "A real improvement also shows where it was not trained.", columns, rows
    )


def _unseen(unseen: pl.DataFrame, digits: dict[str, int]) -> PageTable:
    rows = []
    for row in unseen.iter_rows(named=True):
        places = digits[row["measure"]]
        kept = Cell("–") if row["kept"] is None else Cell(f"{row['kept']:.0%}", row["kept"])
        cells = [*_place(row), _number(row["seen_gain"], places, "+"), _interval(row, places, "+"), kept]
        rows.append(Line(cells, row["measure"]))
    columns = [
        *(ALGORITHM, REWARD, PROMPTS),
        Column("gain, seen", "mean gain on the prompts that training drew from"),
        Column("gain, unseen", "gain on this prompt set"),
        Column("kept", "the second as a share of the first"),
    ]
    return PageTable("Does it hold on unseen prompts?", "", columns, rows)


def _diagnostics(diagnostics: pl.DataFrame, digits: dict[str, int]) -> PageTable:
    rows = []
    for row, statistics in _by_algorithm(diagnostics):
        places = digits[row["measure"]]
        values = [_interval(statistics["final"], places), _interval(statistics["gain"], places, "+")]
        place = _place(row)
        measure = Cell(f"{row['measure']} ({row['unit']})" if row["unit"] else row["measure"])
        rows.append(Line([place[0], measure, place[2], *values], "", row["evaluation_set"]))
    columns = [
        *(ALGORITHM, Column("measure", "", False), PROMPTS),
        Column("final", "mean of the last evaluation"),
        Column("change", "final less the base model's"),
    ]
    note = "Not rewards: KL is the divergence to the base model; diversity is between images of one prompt."
    return PageTable("Diagnostics", note, columns, rows)


def _paper(paper: pl.DataFrame) -> PageTable:
    rows = []
    for row, texts in zip(paper.iter_rows(named=True), paper_cells(paper) if paper.height else [], strict=True):
        values = [row["paper"], row["measured"], row["gap"]]
        numbers = [Cell(text, value) for text, value in zip(texts[3:], values, strict=True)]
        rows.append(Line([Cell(texts[2]), Cell(texts[0]), Cell(texts[1]), *numbers]))
    columns = [Column(PAPER_HEADINGS[0], "", False), Column("reward", "", False), PROMPTS]
    columns += [Column(heading) for heading in PAPER_HEADINGS[1:]]
    note = f"{SOURCE}. The base model comes first: its gap shows how well the set-up is calibrated."
    return PageTable("Beside the paper", note, columns, rows)


def runs_table(considered: pl.DataFrame) -> PageTable:
    """Every readable run, compared or not."""
    seconds = pl.sum_horizontal([c for c in considered.columns if c.endswith("_seconds")]).alias("seconds")
    rows = []
    for row in considered.with_columns(seconds).sort("suite", "variant", "seed").iter_rows(named=True):
        memory = row["peak_memory_bytes"]
        cells = [
            Cell(row["variant"], algorithm=True),
            Cell(row["suite"]),
            Cell(str(row["seed"]), row["seed"]),
            Cell(row["status"]),
            Cell(f"{_text(row['epoch'])} of {_text(row['epochs'])}", row["epoch"]),
            _number(row["reward_queries"], 0),
            _number(row["seconds"], 0),
            Cell("–") if memory is None else Cell(f"{memory / 2**30:.2f}", memory),
            Cell(row["device"] or "–"),
            Cell(row["run"]),
            Cell((row["error"] or "")[:300]),
        ]
        rows.append(Line(cells))
    columns = [Column(heading, "", False) for heading in ("variant", "suite")]
    columns += [Column("seed"), Column("status", "", False), Column("epoch"), Column("queries"), Column("seconds")]
    columns += [Column("peak GiB"), Column("device", "", False)]
    columns += [Column("folder", "", False, long=True), Column("error", "", False, long=True)]
    return PageTable("Runs", "Every run that could be read; only finished ones are compared.", columns, rows)


def _by_algorithm(estimates: pl.DataFrame) -> Iterator[tuple[Row, dict[str, Row]]]:
    """(place, statistic -> its row), ordered as every table, by final value."""
    finals = estimates.filter(pl.col("statistic") == "final").sort("estimate", descending=True)
    grouped = {
        key: {row["statistic"]: row for row in group.iter_rows(named=True)}
        for key, group in estimates.group_by([*CELL, "variant"])
    }
    for row in order(finals, pl.col("estimate"), descending=True).iter_rows(named=True):
        yield row, grouped[tuple(row[column] for column in [*CELL, "variant"])]


def _place(row: Row) -> list[Cell]:
    reward = f"{row['measure']} ({row['role']})"
    return [Cell(row["variant"], algorithm=True), Cell(reward), Cell(prompt_set(row))]


def _number(value: float | None, digits: int, sign: str = "") -> Cell:
    return Cell("–") if value is None else Cell(f"{value:{sign},.{digits}f}", value)


def _interval(row: Row | None, digits: int, sign: str = "") -> Cell:
    if row is None or row["estimate"] is None:
        return Cell("–")
    detail = "" if row["low"] is None else f"[{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
    return Cell(f"{row['estimate']:{sign}.{digits}f}", row["estimate"], detail=detail)


def _reached(row: Row | None, seeds: int) -> Cell:
    if row is None:
        return Cell("never")
    some = "" if row["seeds"] == seeds else f" ({row['seeds']} of {seeds})"
    return Cell(f"{row['estimate']:,.0f}{some}", row["estimate"])


def digits_by_measure(estimates: pl.DataFrame) -> dict[str, int]:
    """Decimals per measure, the same in every table."""
    finals = estimates.filter(pl.col("statistic") == "final")
    return {block["measure"][0]: decimals([block["estimate"]]) for block in finals.partition_by("measure")}


def _text(value: int | None) -> str:
    return "?" if value is None else str(value)
