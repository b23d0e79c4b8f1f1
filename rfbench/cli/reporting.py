"""Commands that read finished and running runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from rfbench.cli.app import console, working


def compare_runs(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders with runs, searched at any depth; studies where named.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where files go; by default 'comparison' in the first folder.")
    ] = None,
    x: Annotated[
        str, typer.Option("--x", help="Horizontal axis of the curves: queries, epochs, steps, calls or seconds.")
    ] = "queries",
    figures: Annotated[bool, typer.Option("--figures", help="Draw the plots too, as PNG and SVG in OUT.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page with everything.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for scripts.")] = False,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Compare runs of different suites or budgets.")
    ] = False,
) -> None:
    """Compare finished runs: the verdict and a table here; CSV and Markdown in OUT, plots where they are asked for."""
    from rfbench import report

    with working("comparing"):
        comparison = report.analyse(folders, allow_mixed=allow_mixed)
        written = report.write(comparison, out or folders[0] / "comparison", x=x, html=html, figures=figures)
    if as_json:
        console.out(comparison.to_json(written.files), highlight=False)
        return
    console.print(report.render_comparison(comparison))
    places = Counter(f"{file.parent}/" for file in written.files if file != html)
    listed = [f"{place} ({count} files)" for place, count in places.items()] + ([str(html)] if html else [])
    console.print("written: " + ", ".join(listed), markup=False, highlight=False, soft_wrap=True)


def watch(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders with runs, searched at any depth; waited for until they are there.")
    ],
) -> None:
    """Watch queued, running and finished runs, refreshing until Ctrl-C."""
    from rfbench import report
    from rfbench.sweeps.slurm import queue

    roots = [root for folder in folders for root in (folder.resolve(), *folder.resolve().parents[:3])]
    report.watch(folders, console, (lambda: queue.task_states(roots)) if queue.installed() else None)
