"""Run folders -> polars frames. A damaged line or folder becomes a `Problem` and is skipped; it never stops anything.

Frames of `Runs` (one `run` value per run folder: its path, as found):

- `runs`: a row per run: suite, suite_hash, algorithm, seed, status, epoch, epochs, counters, seconds per phase, device.
- `evals`: one row per (run, epoch, evaluation set, measure): mean, standard_error, images, the mean of each prompt
  (`per_prompt`), and what the run had spent by then: reward_queries, the counters of `SPENT`, and `seconds`, training
  seconds (every phase but evaluation).
- `metrics`: one row per (run, epoch), with every numeric metric of the run's algorithm.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, get_args

import polars as pl
import polars.selectors as cs

from rfbench.errors import InputError
from rfbench.files import read_packed
from rfbench.records.format import PHASES, CountersRecord, EvaluationRecord, Role, RunRecord
from rfbench.records.migration import parse_run, renamed_keys

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
SPENT: dict[str, pl.DataType] = {
    "denoiser_forwards": pl.Int64(),
    "denoiser_backwards": pl.Int64(),
    "optimizer_steps": pl.Int64(),
    "seconds": pl.Float64(),
}
COUNTERS = tuple(CountersRecord.model_fields)
IDENTITY = ("run", "suite", "variant", "seed")
STUDIES = "studies"  # results/studies/<name>/<suite>/<variant>/seed-<n>: read where it is named, not with all results


@dataclass(frozen=True)
class Problem:
    """Something that was left out, and why: mostly what could not be read."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(frozen=True)
class Runs:
    """Every readable run below the given folders. `records` holds each run's run.json as it was written."""

    runs: pl.DataFrame
    evals: pl.DataFrame
    metrics: pl.DataFrame
    records: dict[str, RunRecord] = field(repr=False)
    problems: tuple[Problem, ...] = ()

    def keep(self, names: Sequence[str]) -> Runs:
        """The same, reduced to the runs with these names, in their order."""
        wanted = pl.DataFrame({"run": list(names)}, schema={"run": pl.String()}).with_row_index("place")
        runs, evals, metrics = (
            frame.join(wanted, on="run").sort("place", maintain_order=True).drop("place")
            for frame in (self.runs, self.evals, self.metrics)
        )
        return Runs(runs, evals, metrics, {name: self.records[name] for name in names}, self.problems)


def load(folders: Sequence[Path | str]) -> Runs:
    """Read every run folder at or below `folders`, whatever its status; studies only where they are named."""
    rows: list[dict[str, Any]] = []
    records: dict[str, RunRecord] = {}
    problems: list[Problem] = []
    evals: list[pl.DataFrame] = []
    metrics: list[pl.DataFrame] = []
    found = _search([Path(folder) for folder in folders])
    for folder in found.runs:
        name = os.fsencode(folder).decode("utf-8", "backslashreplace")  # frames and files hold no other names
        try:
            record = parse_run((folder / "run.json").read_bytes(), f"{name}/run.json")
            row = _run_row(name, record)
        except OSError as error:
            problems.append(Problem(f"{name}/run.json", f"cannot be read ({error.strerror}); this run is left out"))
            continue
        except InputError as error:
            problems.append(Problem(name, f"{error}; this run is left out"))
            continue
        epochs, metric_problems = read_metrics(folder / "metrics.jsonl")
        identity = [pl.lit(row[key]).alias(key) for key in IDENTITY]
        curves, eval_problems = _read_evals(folder / "evals.jsonl", _spent_by_epoch(epochs), identity)
        problems += metric_problems + eval_problems
        rows.append(row)
        records[name] = record
        evals.append(curves)
        if not epochs.is_empty():
            metrics.append(epochs.select(*identity, pl.all().exclude(IDENTITY)))
    for place, group in groupby(found.studies, lambda study: study.parent):
        studies = list(group)
        names = ", ".join(study.name for study in studies)
        what = f"studies are compared by name ({names}), as in `rfbench compare {studies[0]}`"
        problems.append(Problem(str(place), what))
    return Runs(
        pl.DataFrame(rows, schema=_run_schema()),
        pl.concat(evals, rechunk=True) if evals else _no_evals(),
        pl.concat(metrics, how="diagonal_relaxed", rechunk=True) if metrics else _no_metrics(),
        records,
        tuple(problems),
    )


def find_run_folders(folders: Sequence[Path]) -> list[Path]:
    """Folders that hold a run.json, at or below `folders`, each once, in the order of their paths. Follows links.

    What is below a folder of studies is found where that folder, or one in it, is among `folders`.
    """
    return _search(folders).runs


class _Found(NamedTuple):
    """The folders of runs, and of the studies that nobody named."""

    runs: list[Path]
    studies: list[Path]


def _search(folders: Sequence[Path]) -> _Found:
    runs: dict[Path, Path] = {}
    studies: list[Path] = []
    entered: set[Path] = set()
    named = {folder.resolve() for folder in folders}
    for top in folders:
        if not top.is_dir():
            raise InputError(f"{top} is not a folder; give the folder that holds your runs, such as results/")
        for path, below, files in os.walk(top, followlinks=True):
            below.sort()
            here = Path(path)
            real = here.resolve()
            if "run.json" in files:
                runs.setdefault(real, here)
                below.clear()
            elif real not in named and _holds_studies(here):
                studies += [here / name for name in below if (here / name).resolve() not in named]
                below.clear()
            elif real in entered:  # a link may lead back to where it stands
                below.clear()
            entered.add(real)
    return _Found(sorted(runs.values()), studies)


def _holds_studies(folder: Path) -> bool:
    """Whether this is a folder of studies, and no suite of that name: <variant>/seed-<n> lies right below a suite."""
    return folder.name == STUDIES and not any(folder.glob("*/*/run.json"))


def read_metrics(path: Path) -> tuple[pl.DataFrame, list[Problem]]:
    """metrics.jsonl: numeric keys only, one row per epoch; the last record of an epoch counts."""
    frame, problems = _parse_metrics(path)
    numbers = frame.lazy().select(pl.col("epoch").cast(pl.Int64), cs.numeric().exclude("epoch").cast(pl.Float64))
    return numbers.unique("epoch", keep="last", maintain_order=True).sort("epoch").collect(), problems


def _parse_metrics(path: Path) -> tuple[pl.DataFrame, list[Problem]]:
    try:
        frame = pl.read_ndjson(io.BytesIO(read_packed(path)), infer_schema_length=None)
        frame = frame.rename(renamed_keys("metrics", frame.columns))
        if frame.schema.get("epoch") == pl.Int64 and not frame["epoch"].null_count():
            return frame, []
    except (OSError, pl.exceptions.PolarsError):
        pass
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


def _read_evals(path: Path, spent: pl.DataFrame, identity: list[pl.Expr]) -> tuple[pl.DataFrame, list[Problem]]:
    frame, problems = _parse_evals(path)
    usable = frame.filter(
        pl.all_horizontal(pl.col(REQUIRED_IN_EVAL).is_not_null()),
        pl.col("mean").is_finite(),
        pl.col("epoch") >= 0,
        pl.col("standard_error").is_null() | pl.col("standard_error").is_between(0, math.inf, closed="left"),
    )
    if usable.height < frame.height:
        broken = frame.height - usable.height
        problems.append(Problem(str(path), f"{broken} of {frame.height} records lack a finite mean or a key; left out"))
    key = ["epoch", "evaluation_set", "measure"]
    unique = usable.unique(key, keep="last", maintain_order=True)
    if unique.height < usable.height:
        twice = usable.height - unique.height
        problems.append(Problem(str(path), f"{twice} evaluations are written twice; the later record counts"))
    if unique.is_empty():
        problems.append(Problem(str(path), "no usable evaluation"))
    without = sorted(set(unique["epoch"]) - set(spent["epoch"])) if spent.height > 1 else []
    if without:
        what = f"no record of epoch {', '.join(map(str, without))}: what the run had spent by then is not known"
        problems.append(Problem(str(path.with_name("metrics.jsonl")), what))
    curves = unique.sort("evaluation_set", "measure", "epoch").join(
        spent, on="epoch", how="left", maintain_order="left"
    )
    return curves.select(*identity, pl.all()), problems


def _parse_evals(path: Path) -> tuple[pl.DataFrame, list[Problem]]:
    """polars parses a sound file in one call; anything else is read line by line, to say which line is broken."""
    try:
        content = read_packed(path)
        older = renamed_keys("evals", json.loads(content.partition(b"\n")[0]))
        today = {new: old for old, new in older.items()}
        schema = {today.get(key, key): dtype for key, dtype in EVAL_SCHEMA.items()}
        return pl.read_ndjson(io.BytesIO(content), schema=schema).rename(older), []
    except (OSError, ValueError, pl.exceptions.PolarsError):
        pass
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


def _run_row(name: str, record: RunRecord) -> dict[str, Any]:
    counters, phases = record.counters.model_dump(), record.phase_seconds
    row: dict[str, Any] = {"run": name, "suite": record.suite["name"], "error": record.error}
    row |= {key: getattr(record, key) for key in ("suite_hash", "variant", "seed", "status", "epoch", "epochs")}
    row |= counters | {f"{phase}_seconds": phases.get(phase) for phase in PHASES}
    row |= {key: getattr(record, key) for key in ("peak_memory_bytes", "device", "updated_at")}
    return {key: row[key] for key in _run_schema()}


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _spent_by_epoch(metrics: pl.DataFrame) -> pl.DataFrame:
    """What had been spent by the end of each epoch (`SPENT`): counters as written, seconds added up."""
    phases = [c for c in metrics.columns if c.endswith("_seconds") and c != "evaluate_seconds"]
    columns = {
        name: pl.col(name) if name in metrics.columns else pl.lit(None) for name in SPENT if name != "seconds"
    } | {"seconds": pl.sum_horizontal(phases).cum_sum() if phases else pl.lit(None)}
    spent = metrics.filter(pl.col("epoch") > 0).select(
        "epoch", *(columns[name].cast(dtype).alias(name) for name, dtype in SPENT.items())
    )
    nothing = {"epoch": [0]} | {name: [0] for name in SPENT}
    schema: dict[str, pl.DataType] = {"epoch": pl.Int64(), **SPENT}
    return pl.concat([pl.DataFrame(nothing, schema=schema), spent])


def _identity_schema() -> dict[str, pl.DataType]:
    return {"run": pl.String(), "suite": pl.String(), "variant": pl.String(), "seed": pl.Int64()}


def _run_schema() -> dict[str, pl.DataType]:
    text, whole, real = pl.String(), pl.Int64(), pl.Float64()
    schema: dict[str, pl.DataType] = _identity_schema() | {"suite_hash": text, "status": text}
    schema |= {"epoch": whole, "epochs": whole} | dict.fromkeys(COUNTERS, whole)
    schema |= {f"{phase}_seconds": real for phase in PHASES} | {"peak_memory_bytes": whole}
    return schema | {"device": text, "error": text, "updated_at": text}


def _no_evals() -> pl.DataFrame:
    return pl.DataFrame(schema=_identity_schema() | EVAL_SCHEMA | SPENT)


def _no_metrics() -> pl.DataFrame:
    return pl.DataFrame(schema=_identity_schema() | {"epoch": pl.Int64()})
