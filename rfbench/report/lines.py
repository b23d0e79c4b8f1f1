"""Lines of metrics.jsonl and evals.jsonl -> polars frames, many files at once. A damaged line becomes a `Problem`."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, get_args

import numpy as np
import polars as pl
import polars.selectors as cs

from rfbench.files import read_packed
from rfbench.records.format import EpochRecord, EvaluationRecord, Role
from rfbench.records.migration import renamed_keys

COLUMN_TYPES: dict[Any, pl.DataType] = {
    int: pl.Int64(),
    bool: pl.Boolean(),
    str: pl.String(),
    Role: pl.String(),
    float: pl.Float64(),
    float | None: pl.Float64(),
    list[float]: pl.List(pl.Float64()),
}
EVAL_SCHEMA: dict[str, pl.DataType] = {
    name: COLUMN_TYPES[field.annotation] for name, field in EvaluationRecord.model_fields.items()
}
REQUIRED_IN_EVAL = [
    name
    for name, field in EvaluationRecord.model_fields.items()
    if type(None) not in get_args(field.annotation) and name != "per_prompt"
]
KEY = ["evaluation_set", "measure", "epoch"]


@dataclass(frozen=True)
class Problem:
    """Something that was left out, and why: mostly what could not be read."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


Problems = list[list[Problem]]  # of each file, in their order


def read_metrics(paths: Sequence[Path]) -> tuple[pl.DataFrame, Problems]:
    """Numeric keys of metrics.jsonl: a row per `run`, its place in `paths`, and epoch, where the last record counts."""
    numbers, problems = _read(paths, _parse_metrics, _metrics_by_line)
    own = sorted(set(numbers.columns) - {"run", *EpochRecord.model_fields})  # of algorithms: polars mixes their order
    others = [name for name in (*EpochRecord.model_fields, *own) if name in numbers.columns and name != "epoch"]
    epochs = numbers.select("run", pl.col("epoch").cast(pl.Int64), pl.col(others).cast(pl.Float64))
    return epochs.unique(["run", "epoch"], keep="last", maintain_order=True).sort("run", "epoch"), problems


def read_evals(paths: Sequence[Path]) -> tuple[pl.DataFrame, Problems]:
    """Lines of evals.jsonl: a row per `run`, as above, prompt set, measure and epoch; the last record counts."""
    written, problems = _read(paths, _parse_evals, _evals_by_line)
    usable = (
        written.lazy()
        .with_row_index("line")
        .filter(
            pl.all_horizontal(pl.col(REQUIRED_IN_EVAL).is_not_null()),
            pl.col("mean").is_finite(),
            pl.col("epoch") >= 0,
            pl.col("standard_error").is_null() | pl.col("standard_error").is_between(0, math.inf, closed="left"),
        )
        .select("line", "run", *KEY)
        .collect()
    )
    unique = usable.unique(["run", *KEY], keep="last", maintain_order=True).sort("run", *KEY)
    lines, sound, kept = (_rows_of_each(frame, len(paths)) for frame in (written, usable, unique))
    for place, path in enumerate(paths):
        here = str(path)
        if broken := lines[place] - sound[place]:
            what = f"{broken} of {lines[place]} records lack a finite mean or a key; left out"
            problems[place].append(Problem(here, what))
        if twice := sound[place] - kept[place]:
            problems[place].append(Problem(here, f"{twice} evaluations are written twice; the later record counts"))
        if not kept[place]:
            problems[place].append(Problem(here, "no usable evaluation"))
    return written[unique["line"]], problems


def _rows_of_each(frame: pl.DataFrame, runs: int) -> list[int]:
    rows = dict(frame.group_by("run").len().iter_rows())
    return [rows.get(run, 0) for run in range(runs)]


def _read(
    paths: Sequence[Path],
    parse: Callable[[Sequence[bytes]], pl.DataFrame | None],
    by_line: Callable[[Path], tuple[pl.DataFrame, list[Problem]]],
) -> tuple[pl.DataFrame, Problems]:
    """The lines of every file, with the file's place as `run`, and what is wrong with each file.

    polars parses sound files in one call, together where they are of one kind; any other is read line by line, to say
    which line is broken.
    """
    contents = [_content(path) for path in paths]
    rows = [content.count(b"\n") for content in contents]
    together = parse(contents) if all(content.endswith(b"\n") for content in contents) else None
    if together is not None and together.height == sum(rows):  # a line gives one row, or none if it is blank
        return together.with_columns(run=np.repeat(np.arange(len(paths)), rows)), [[] for _ in paths]
    frames, problems = [], []
    for place, (path, content) in enumerate(zip(paths, contents, strict=True)):
        frame, wrong = parse([content]), list[Problem]()
        if frame is None:
            frame, wrong = by_line(path)
        frames.append(frame.with_columns(run=pl.lit(place, pl.Int64)))
        problems.append(wrong)
    return pl.concat(frames, how="diagonal_relaxed"), problems


def _content(path: Path) -> bytes:
    """What a file holds, or nothing where it cannot be read: reading its lines says why."""
    try:
        return read_packed(path)
    except OSError:
        return b""


def _parse_metrics(contents: Sequence[bytes]) -> pl.DataFrame | None:
    """None where there is a line without an epoch, or, in several files, a key that is a number in one alone."""
    try:
        frame = pl.read_ndjson(io.BytesIO(b"".join(contents)), infer_schema_length=None)
        frame = frame.rename(renamed_keys("metrics", frame.columns))
    except pl.exceptions.PolarsError:
        return None
    if frame.schema.get("epoch") != pl.Int64 or frame["epoch"].null_count():
        return None
    numbers = frame.select(cs.numeric())
    other = frame.width - numbers.width - sum(dtype == pl.Null for dtype in frame.dtypes)
    return None if other and len(contents) > 1 else numbers


def _metrics_by_line(path: Path) -> tuple[pl.DataFrame, list[Problem]]:
    lines, problems = _read_lines(path)
    rows = []
    for number, record in lines:
        if isinstance(record.get("epoch"), int):
            rows.append({key: float(value) for key, value in _today("metrics", record).items() if _is_number(value)})
        else:
            problems.append(Problem(str(path), f"line {number} has no epoch; it is left out"))
    return pl.DataFrame(rows, infer_schema_length=None) if rows else pl.DataFrame(
        schema={"epoch": pl.Int64()}
    ), problems


def _parse_evals(contents: Sequence[bytes]) -> pl.DataFrame | None:
    """None where a first line is no object, or files are of several formats."""
    try:
        older, *others = [renamed_keys("evals", json.loads(io.BytesIO(content).readline())) for content in contents]
        if any(other != older for other in others):
            return None
        today = {new: old for old, new in older.items()}
        schema = {today.get(key, key): dtype for key, dtype in EVAL_SCHEMA.items()}
        return pl.read_ndjson(io.BytesIO(b"".join(contents)), schema=schema).rename(older)
    except (ValueError, TypeError, pl.exceptions.PolarsError):
        return None


def _evals_by_line(path: Path) -> tuple[pl.DataFrame, list[Problem]]:
    lines, problems = _read_lines(path)
    rows = [_eval_row(_today("evals", record)) for _, record in lines]
    return pl.DataFrame(rows, schema=EVAL_SCHEMA), problems


def _today(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """A record with its keys as they are called today."""
    older = renamed_keys(name, record)
    return {older.get(key, key): value for key, value in record.items()}


def _eval_row(record: dict[str, Any]) -> dict[str, Any]:
    """The record with every value of a wrong type replaced by null."""
    row: dict[str, Any] = {}
    for key, dtype in EVAL_SCHEMA.items():
        value = record.get(key)
        if dtype == pl.Float64:
            row[key] = float(value) if _is_number(value) else None
        elif dtype == pl.Int64:
            row[key] = int(value) if _is_number(value) and float(value).is_integer() else None
        elif dtype == pl.List:
            row[key] = value if isinstance(value, list) and all(map(_is_number, value)) else None
        else:
            row[key] = value if isinstance(value, bool if dtype == pl.Boolean else str) else None
    return row


def _read_lines(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[Problem]]:
    """(line number, record) of each line that is a JSON object. A torn last line is what a killed run leaves behind."""
    try:
        text = read_packed(path).decode("utf-8", errors="replace")
    except OSError as error:
        return [], [Problem(str(path), f"cannot be read ({error.strerror})")]
    lines: list[tuple[int, dict[str, Any]]] = []
    problems: list[Problem] = []
    for number, line, complete in _numbered(text):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            what = "is broken" if complete else "is torn"
            problems.append(Problem(str(path), f"line {number} {what}; it is left out"))
            continue
        if isinstance(record, dict):
            lines.append((number, record))
        else:
            problems.append(Problem(str(path), f"line {number} is not a JSON object; it is left out"))
    return lines, problems


def _numbered(text: str) -> Iterator[tuple[int, str, bool]]:
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, line, number < len(lines)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
