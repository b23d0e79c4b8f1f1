"""Commands that show what is installed, and start something new."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rfbench.cli.app import Overrides, Plugins, console
from rfbench.errors import InputError


def new_plugin(
    kind: Annotated[str, typer.Argument(help="algorithm, reward, prompts, model or suite", metavar="KIND")],
    name: Annotated[str, typer.Argument(help="Its name: lower-case words joined by hyphens.")],
    out: Annotated[Path | None, typer.Option(help="The new folder; by default the name, here.")] = None,
) -> None:
    """Write a small installable package with a working plugin or suite, and its test."""
    from rfbench.cli.scaffold import new_package

    folder = out or Path(name)
    trial = new_package(kind, name, folder)
    console.print(f"wrote {folder}; next:", markup=False, highlight=False)
    console.print(f"  pip install -e {folder}\n  {trial}", markup=False, highlight=False)


def list_names(
    kind: Annotated[str, typer.Argument(help="algorithms, suites, rewards, models or prompts", metavar="KIND")],
    plugin: Plugins = None,
) -> None:
    """List what is installed."""
    from rfbench.errors import did_you_mean
    from rfbench.plugins import registry
    from rfbench.suite.loading import load_suite, suite_names

    kinds = (*registry.KINDS, "suites")
    if kind not in kinds:
        raise InputError(f"cannot list {kind!r}{did_you_mean(kind, kinds)}; it is one of {', '.join(kinds)}")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    if kind == "suites":
        for name in suite_names():
            table.add_row(escape(name), escape(load_suite(name).description))
    else:
        for name in registry.names(kind):
            table.add_row(escape(name), _description(kind, name))
    console.print(table)


def _description(kind: str, name: str) -> str:
    """The first line of a plugin's docstring, or why it cannot be used."""
    from rfbench.plugins import registry

    try:
        return escape((registry.find(kind, name).__doc__ or "").strip().partition("\n")[0])
    except InputError as error:
        return f"[red]{escape(str(error))}[/]"


def show(
    suite: Annotated[str, typer.Argument(help="A suite's name, or the path of a .toml file.", metavar="SUITE")],
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ALGORITHM", help="Only this algorithm or variant, listed in the suite or not. Repeatable."
        ),
    ] = None,
    overrides: Overrides = None,
    plugin: Plugins = None,
) -> None:
    """Print a suite as TOML that can be saved and run: every key that --set takes, its value, default and meaning."""
    from rfbench.planning.suite_components import suite_components
    from rfbench.planning.suite_document import document
    from rfbench.suite.loading import load_suite

    loaded = load_suite(suite, overrides or [])
    console.out(
        document(loaded, suite_components(loaded).suite_hash, algorithm or loaded.algorithms), end="", highlight=False
    )
