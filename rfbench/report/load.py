"""Run folders -> polars frames. A damaged line or folder becomes a `Problem` and is skipped; it never stops anything.

Frames of `Runs` (one `run` value per run folder: its path, as found):

- `runs`: a row per run: suite, suite_hash, algorithm, seed, status, epoch, epochs, counters, seconds per phase, device.
- `evals`: one row per (run, evaluation set, measure, epoch), in this order: mean, standard_error, images, the mean of
  each prompt (`per_prompt`), and what the run had spent by then: reward_queries, the counters of `SPENT`, and
  `seconds`, training seconds (every phase but evaluation).
- `metrics`: one row per (run, epoch), with every numeric metric of the run's algorithm.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from rfbench.errors import InputError
from rfbench.records.format import PHASES, CountersRecord, RunRecord
from rfbench.records.migration import parse_run
from rfbench.report.lines import EVAL_SCHEMA, Problem, Problems, read_evals, read_metrics

SPENT: dict[str, pl.DataType] = {
    "denoiser_forwards": pl.Int64(),
    "denoiser_backwards": pl.Int64(),
    "optimizer_steps": pl.Int64(),
    "seconds": pl.Float64(),
}
COUNTERS = tuple(CountersRecord.model_fields)
IDENTITY = ("run", "suite", "variant", "seed")
READ_AT_ONCE = 50  # runs: enough for two cores, and few against memory
STUDIES = "studies"  # results/studies/<name>/<suite>/<variant>/seed-<n>: read where it is named, not with all results


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
        wanted = pl.DataFrame({"run": list(names)}, schema={"run": pl.String()})
        runs, evals, metrics = (
            wanted.join(frame, on="run", maintain_order="left_right").select(frame.columns)
            for frame in (self.runs, self.evals, self.metrics)
        )
        return Runs(runs, evals, metrics, {name: self.records[name] for name in names}, self.problems)


def load(folders: Sequence[Path | str]) -> Runs:
    """Read every run folder at or below `folders`, whatever its status; studies only where they are named."""
    rows: list[dict[str, Any]] = []
    records: dict[str, RunRecord] = {}
    readable: list[Path] = []
    problems: dict[Path, list[Problem]] = {}
    found = _search([Path(folder) for folder in folders])
    for folder in found.runs:
        name = os.fsencode(folder).decode("utf-8", "backslashreplace")  # frames and files hold no other names
        try:
            record = parse_run((folder / "run.json").read_bytes(), f"{name}/run.json")
            rows.append(_run_row(name, record))
        except OSError as error:
            what = f"cannot be read ({error.strerror}); this run is left out"
            problems[folder] = [Problem(f"{name}/run.json", what)]
        except InputError as error:
            problems[folder] = [Problem(name, f"{error}; this run is left out")]
        else:
            records[name] = record
            readable.append(folder)
    runs = pl.DataFrame(rows, schema=_run_schema())
    evals, metrics = [_no_evals()], [_no_metrics()]
    for start in range(0, len(readable), READ_AT_ONCE):
        here = slice(start, start + READ_AT_ONCE)
        curves, epochs, wrong = _read_lines(runs[here], readable[here])
        evals.append(curves)
        metrics.append(epochs)
        problems |= zip(readable[here], wrong, strict=True)
    return Runs(
        runs,
        pl.concat(evals),
        pl.concat(metrics, how="diagonal_relaxed", rechunk=True),
        records,
        (*(problem for folder in found.runs for problem in problems[folder]), *_left_studies(found.studies)),
    )


def _left_studies(studies: Sequence[Path]) -> Iterator[Problem]:
    for place, group in groupby(studies, lambda study: study.parent):
        together = list(group)
        names = ", ".join(study.name for study in together)
        what = f"studies are compared by name ({names}), as in `rfbench compare {together[0]}`"
        yield Problem(str(place), what)


def _read_lines(runs: pl.DataFrame, folders: Sequence[Path]) -> tuple[pl.DataFrame, pl.DataFrame, Problems]:
    """The rows of `Runs.evals` and of `Runs.metrics` of some runs, and what is wrong with each."""
    paths = [folder / "metrics.jsonl" for folder in folders]
    metrics, problems = read_metrics(paths)
    evals, of_evals = read_evals([folder / "evals.jsonl" for folder in folders])
    spent = _spent_by_epoch(metrics, len(folders))
    for of_run, more in zip(problems, of_evals, strict=True):
        of_run += more
    for run, epochs in _unknown(evals, spent):
        what = f"no record of epoch {', '.join(map(str, epochs))}: what the run had spent by then is not known"
        problems[run].append(Problem(str(paths[run]), what))
    curves = evals.join(spent, on=["run", "epoch"], how="left", maintain_order="left")
    return _identified(curves, runs), _identified(metrics, runs), problems


def _unknown(evals: pl.DataFrame, spent: pl.DataFrame) -> Iterator[tuple[int, list[int]]]:
    """Of each run with a record of some epoch, the evaluated epochs that have none."""
    recorded = spent.filter(pl.col("epoch") > 0).select("run").unique()
    epochs = evals.select("run", "epoch").unique().join(spent, on=["run", "epoch"], how="anti")
    without = epochs.join(recorded, on="run", how="semi").sort("run", "epoch")
    yield from without.group_by("run", maintain_order=True).agg("epoch").iter_rows()


def _identified(lines: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """Lines with what their runs are called in place of their places among `runs`."""
    return pl.concat([runs.select(IDENTITY)[lines["run"]], lines.drop(IDENTITY, strict=False)], how="horizontal")


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


def _run_row(name: str, record: RunRecord) -> dict[str, Any]:
    counters, phases = record.counters.model_dump(), record.phase_seconds
    row: dict[str, Any] = {"run": name, "suite": record.suite["name"], "error": record.error}
    row |= {key: getattr(record, key) for key in ("suite_hash", "variant", "seed", "status", "epoch", "epochs")}
    row |= counters | {f"{phase}_seconds": phases.get(phase) for phase in PHASES}
    row |= {key: getattr(record, key) for key in ("peak_memory_bytes", "device", "updated_at")}
    return {key: row[key] for key in _run_schema()}


def _spent_by_epoch(metrics: pl.DataFrame, runs: int) -> pl.DataFrame:
    """What each run had spent by the end of each epoch (`SPENT`): counters as written, seconds added up."""
    phases = [c for c in metrics.columns if c.endswith("_seconds") and c != "evaluate_seconds"]
    columns = {name: pl.col(name) if name in metrics.columns else pl.lit(None) for name in SPENT}
    if phases:
        timed = pl.any_horizontal(pl.col(phases).is_not_null()).any()  # a run without any phase has no seconds
        columns["seconds"] = pl.when(timed).then(pl.sum_horizontal(phases).cum_sum()).over("run")
    spent = metrics.filter(pl.col("epoch") > 0).select(
        "run", "epoch", *(columns[name].cast(dtype).alias(name) for name, dtype in SPENT.items())
    )
    nothing = {"run": range(runs)} | {name: [0] * runs for name in ("epoch", *SPENT)}
    schema: dict[str, pl.DataType] = {"run": pl.Int64(), "epoch": pl.Int64(), **SPENT}
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
