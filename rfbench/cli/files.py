"""Commands about the published files that a suite reads."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from rfbench.cli.app import Overrides, Plugins, console, working

SuiteName = Annotated[str, typer.Argument(help="A suite's name, or the path of a .toml file.", metavar="SUITE")]


def fetch(suite: SuiteName, overrides: Overrides = None, plugin: Plugins = None) -> None:
    """Download exactly what a suite needs and this disk lacks. Ended early, the same command goes on."""
    from rfbench.suite.loading import load_suite

    loaded = load_suite(suite, overrides or [])
    from rfbench.planning.suite_components import suite_components

    needs = suite_components(loaded).needs()
    if not needs:
        console.print(f"{loaded.name} reads no published files", highlight=False)
        return
    if all(need.source.find() for need in needs):
        console.print(f"every file of {loaded.name} is here; nothing to download", highlight=False)
        return
    from huggingface_hub import constants

    from rfbench.hub import fetch as fetching

    downloads = fetching.size_up(needs, suite)
    table = Table(title="to download", title_justify="left", box=None, padding=(0, 2, 0, 0), show_header=False)
    for item in downloads:
        where = f"{item.source.path} ({item.source.revision[:12]})"
        table.add_row(", ".join(item.settings), where, f"{item.files} files", f"{item.bytes / 1e9:.2f} GB")
    console.print(table)
    total, free = sum(item.bytes for item in downloads), fetching.free_bytes()
    console.print(
        f"{total / 1e9:.2f} GB into {constants.HF_HUB_CACHE}, which has {free / 1e9:.0f} GB free",
        highlight=False,
        soft_wrap=True,
    )
    for item in downloads:
        folder = fetching.download(item)
        console.print(f"here: {item.source.path} in {folder}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"every file of {loaded.name} is here; next: rfbench doctor {suite}", highlight=False)


def doctor(
    suite: SuiteName,
    overrides: Overrides = None,
    plugin: Plugins = None,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Read every downloaded file, and compare it with its checksum.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Load the model and time it, for the hours that a run takes.")
    ] = False,
) -> None:
    """Tell what a suite lacks on this machine, and what its runs cost. Exit code 1 where it cannot run."""
    from rfbench.suite.loading import load_suite

    loaded = load_suite(suite, overrides or [])
    from rfbench.doctor.diagnosis import diagnose
    from rfbench.doctor.terminal import render, verdict

    with working(f"looking at the files and libraries of {loaded.name}"):
        found = diagnose(loaded, checksum=checksum)
    speed = None
    if measure and found.can_run and found.outlines:
        from rfbench.inference.timing import measure as measure_speed

        with working(f"timing the model of {loaded.name}"):
            speed = measure_speed(found.outlines[0].open())
    console.print(render(found, speed))
    for line in verdict(found, suite):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not found.can_run:
        raise typer.Exit(1)
