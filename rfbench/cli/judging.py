"""Commands that judge what was trained."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from rfbench.cli.app import Overrides, Plugins, console, is_main_process, progress

if TYPE_CHECKING:
    from rfbench.inference.verify import Deviation
    from rfbench.report.calibration import Row


class TierChoice(str, Enum):
    quick = "quick"
    final = "final"


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as results/large-hpsv2/prdp/seed-0.")],
    tier: Annotated[
        TierChoice, typer.Option(help="quick: as during training; final: the suite's full evaluation.")
    ] = TierChoice.final,
    overrides: Overrides = None,
    plugin: Plugins = None,
) -> None:
    """Evaluate a run's last checkpoint; the records go to TIER.jsonl in its folder."""
    from rfbench.inference.evaluate import evaluate_run

    written = evaluate_run(run, tier.value, progress(), overrides or [])
    console.print(f"written: {written}", markup=False, highlight=False, soft_wrap=True)


def verify(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as results/reference/small-shapes/prdp/seed-0.")],
    epochs: Annotated[int, typer.Option(min=1, help="How many of its first epochs to run again.")] = 1,
    overrides: Overrides = None,
    plugin: Plugins = None,
) -> None:
    """Run the first epochs of a recorded run again, and compare with its records; exit code 1 where they disagree."""
    from rfbench.inference.verify import verify as repeat

    found = repeat(run, epochs, progress(), overrides or [])
    if is_main_process():
        console.print(_deviations(found.deviations))
        epoch = "epoch" if epochs == 1 else f"{epochs} epochs"
        same = f"{found.numbers - found.different:,} of {found.numbers:,} numbers of the first {epoch} are the same"
        if not found.different:
            verdict = f"repeated: all {found.numbers:,} numbers of the first {epoch} are the same, to the last digit"
        elif found.agrees:
            verdict = f"agrees: every curve is within its tolerance; {same} to the last digit"
        else:
            verdict = f"disagrees: a curve is farther off than its tolerance; {same} to the last digit"
        console.print(verdict, markup=False, highlight=False, soft_wrap=True)
        if not found.agrees:
            raise typer.Exit(1)


def calibrate(
    suite: Annotated[str, typer.Argument(help="A suite's name, or the path of a .toml file.", metavar="SUITE")],
    tier: Annotated[
        TierChoice, typer.Option(help="quick: as during training; final: the suite's full evaluation.")
    ] = TierChoice.quick,
    out: Annotated[Path, typer.Option(help="Root of the results.")] = Path("results"),
    overrides: Overrides = None,
    plugin: Plugins = None,
) -> None:
    """Evaluate a suite's untouched base model, and show the gap to the paper's. Stopped, the same command goes on."""
    from rfbench.suite.loading import load_suite

    loaded = load_suite(suite, overrides or [])
    from rfbench.inference.calibrate import calibrate as measure
    from rfbench.report.calibration import rows
    from rfbench.running.folder import RunFolder

    written = measure(loaded, tier.value, out, progress())
    if is_main_process():
        records = RunFolder(written.parent, writer=False).read(tier.value)
        _print_rows(rows(records, loaded), f"{loaded.name}, {tier.value} tier: the base model")
        console.print(f"written: {written}", markup=False, highlight=False, soft_wrap=True)


def _deviations(deviations: list[Deviation]) -> Table:
    table = Table(
        title="where the curves are farthest apart", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("quantity", overflow="fold")
    for heading in ("recorded", "found", "in tolerances"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in deviations:
        table.add_row(row.quantity, _number(row.stored), _number(row.found), f"{row.tolerances:.2g}")
    return table


def _print_rows(rows: list[Row], title: str) -> None:
    with_paper = any(row.paper is not None for row in rows)
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1)
    )
    for heading in ("prompts", "measure"):
        table.add_column(heading, overflow="fold")
    headings = ("images", "measured", *(("paper", "gap") if with_paper else ()), "±", "ratio")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        paper = [_number(row.paper), _number(row.gap, "+")] if with_paper else []
        cells = [f"{row.images:,}", _number(row.measured), *paper, _number(row.standard_error)]
        table.add_row(row.evaluation_set, row.measure, *cells, _number(row.between_over_within))
    console.print(table)
    footnote = "±: the standard error of the mean over prompts" + ("; the paper does not state its own" * with_paper)
    console.print(footnote, style="dim", highlight=False)
    spread = "ratio: std of a reward between prompts, over that between the images of one prompt"
    console.print(spread, style="dim", highlight=False)


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.4g}"
