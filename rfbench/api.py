"""What the commands do, for notebooks and scripts: to run, load, compare and sweep, with results as polars frames.

Everything comes from the package: ``rfbench.run``, ``rfbench.load``, ``rfbench.compare``, ``rfbench.figures`` and
``rfbench.sweep``. Errors are those of the commands, as `rfbench.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from rfbench.records.format import RunRecord
    from rfbench.records.sink import Sink
    from rfbench.report import Comparison, Runs

Folders = Path | str | Sequence[Path | str]


@dataclass(frozen=True)
class Result:
    """A run that is finished.

    Attributes:
        folder: where its records, sample images, checkpoint and weights lie.
        record: its ``run.json``: what ran, and with which versions.
        metrics: a row per epoch: ``epoch``, rewards, losses, counters, seconds.
        evaluations: a row per ``epoch``, evaluation set and measure: ``mean``, ``standard_error``, ``unit``.
    """

    folder: Path
    record: RunRecord
    metrics: pl.DataFrame
    evaluations: pl.DataFrame

    def __repr__(self) -> str:
        return f"Result({str(self.folder)!r}, {self.metrics.height} epochs)"


def run(
    algorithm: str,
    suite: str,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    out: Path | str = "results",
    *,
    sinks: Sequence[Sink] = (),
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Result:
    """Finetunes with one algorithm on one suite, as ``rfbench run``; a run that is finished already is read.

    >>> import rfbench
    >>> result = rfbench.run(
    ...     "prdp",
    ...     suite="optimum-gaussian",
    ...     overrides={"epochs": 2, "algorithms.prdp.optimizer.learning_rate": 0.01},
    ...     out="mine",
    ...     quiet=True,
    ... )
    >>> result.metrics["epoch"].to_list()
    [1, 2]
    >>> result.evaluations.filter(measure="regret").select("epoch", "mean").height
    2

    Args:
        algorithm: an algorithm, or a variant that the suite names.
        suite: a suite's name, or the path of a TOML file.
        seed: key of the run's prompts and noise.
        overrides: values by the dotted names of the suite's fields, which ``rfbench show SUITE`` lists.
        out: root of the results; the run's folder is ``out/SUITE/ALGORITHM/seed-N``.
        sinks: told of every record as it is made, such as to stop early or to feed a tracker; see ``rfbench.Sink``.
        resume: go on with an unfinished run.
        overwrite: start over, removing what is there.
        quiet: print nothing; what the run remarks on is a Python warning.

    Raises:
        InputError: of settings that cannot work, before anything heavy is loaded.
    """
    from rich.console import Console

    from rfbench.planning.plan import make_plan
    from rfbench.running.progress import Lines, Warnings
    from rfbench.running.trainer import train
    from rfbench.suite.loading import load_suite

    plan = make_plan(load_suite(suite, _as_settings(overrides)), algorithm, seed)
    progress = Warnings() if quiet else Lines(Console())
    return _result(train(plan, Path(out), progress, sinks=sinks, resume=resume, overwrite=overwrite))


def load(folders: Folders = "results") -> Runs:
    """Every run at or below some folders, whatever its status, as polars frames: ``runs``, ``evals``, ``metrics``.

    >>> import rfbench
    >>> runs = rfbench.load("results/")
    >>> runs.runs.select("variant", "seed").rows()
    [('ddpo', 0), ('ddpo', 1), ('prdp', 0), ('prdp', 1)]
    >>> "epoch" in runs.metrics.columns and "epoch" in runs.evals.columns
    True
    """
    from rfbench import report

    return report.load(_folders(folders))


def compare(folders: Folders = "results", *, allow_mixed: bool = False) -> Comparison:
    """Compares the finished runs below some folders, as ``rfbench compare``, and writes nothing.

    >>> import rfbench
    >>> comparison = rfbench.compare("results/")
    >>> comparison.verdicts[0].suite
    'small-shapes'
    >>> sorted(set(comparison.estimates["variant"]))
    ['ddpo', 'prdp']

    The frames are ``table``, ``estimates``, ``pairs``, ``stability`` and others that `rfbench.report` describes.

    Args:
        allow_mixed: compare runs of different suites or budgets too.
    """
    from rfbench.report.comparison import analyse

    return analyse(_folders(folders), allow_mixed)


def figures(comparison: Comparison, x: str = "queries") -> dict[tuple[str, str], Figure]:
    """The plots of a comparison as matplotlib figures, by suite and name.

    ``x``, their horizontal axis: queries, epochs, steps, calls or seconds.

    >>> import rfbench
    >>> comparison = rfbench.compare("results/")
    >>> figures = rfbench.figures(comparison, x="epochs")
    >>> figures["small-shapes", "comparison"].savefig("curves.pdf")
    """
    from rfbench.report.drawing import draw

    drawn = draw(comparison, x)
    return {(drawing.suite, drawing.name): drawing.figure for drawing in drawn}


def sweep(
    algorithms: str | Sequence[str],
    suite: str | Sequence[str],
    seeds: Sequence[int] = range(5),
    overrides: Mapping[str, Any] | None = None,
    out: Path | str = "results",
    *,
    vary: Mapping[str, Sequence[Any]] | None = None,
    jobs: int | None = None,
    quiet: bool = False,
) -> Runs:
    """Runs algorithms x suites x seeds, each in a process of its own, as ``rfbench sweep``; given again, it goes on.

    >>> import rfbench
    >>> runs = rfbench.sweep(
    ...     "prdp", suite="optimum-gaussian", seeds=[0], overrides={"epochs": 1}, out="mine", jobs=1, quiet=True
    ... )
    >>> runs.runs.select("variant", "seed", "status").rows()
    [('prdp', 0, 'finished')]

    Args:
        algorithms: algorithms or variants; an empty list stands for all that each suite lists.
        suite: one suite or several.
        vary: values that a field of each algorithm's table takes in turn, such as
            ``{"optimizer.learning_rate": ["x0.3", "x1", "x3"]}``; ``x3`` is three times its own.
        jobs: runs at a time; by default one per GPU, or per core without one.
        quiet: print nothing.

    Raises:
        RfbenchError: where a run failed, with the reason of each; the others are finished.
    """
    import io

    from rich.console import Console

    from rfbench import report
    from rfbench.errors import RfbenchError
    from rfbench.suite import toml
    from rfbench.sweeps.display import Display
    from rfbench.sweeps.jobs import make_jobs
    from rfbench.sweeps.local import Local, make_lanes

    made = make_jobs(
        [suite] if isinstance(suite, str) else list(suite),
        [algorithms] if isinstance(algorithms, str) else list(algorithms),
        list(seeds),
        Path(out),
        overrides=_as_settings(overrides),
        variations=[
            f"{key}={','.join(value if isinstance(value, str) else toml.inline(value) for value in values)}"
            for key, values in (vary or {}).items()
        ],
    )
    with Display(made, Console(file=io.StringIO()) if quiet else Console()) as display:
        outcomes = Local(make_lanes(jobs)).run(made, display)
    failed = [f"{outcome.job}: {outcome.error}" for outcome in outcomes if outcome.error is not None]
    if failed:
        raise RfbenchError(f"{len(failed)} of {len(made)} runs failed:\n  " + "\n  ".join(failed))
    return report.load([job.folder for job in made])


def _result(folder: Path) -> Result:
    from rfbench import report

    runs = report.load([folder])
    (record,) = runs.records.values()
    return Result(folder, record, runs.metrics, runs.evals)


def _folders(folders: Folders) -> list[Path | str]:
    return [folders] if isinstance(folders, Path | str) else list(folders)


def _as_settings(overrides: Mapping[str, Any] | None) -> list[str]:
    """``{"epochs": 3}`` as the command line's ``epochs=3``."""
    from rfbench.suite import toml

    return [f"{key}={toml.inline(value)}" for key, value in (overrides or {}).items()]
