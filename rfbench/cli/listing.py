"""Commands that show what is installed, and start something new."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rfbench.cli.app import Overrides, Plugins, add_plugins, app, console
from rfbench.errors import InputError


@app.command("new")
def new_plugin(
    kind: Annotated[str, typer.Argument(help="algorithm", metavar="KIND")],
    name: Annotated[str, typer.Argument(help="Its name: lower-case words joined by hyphens.")],
    out: Annotated[Path | None, typer.Option(help="The new folder; by default the name, here.")] = None,
) -> None:
    """Write a small installable package with a working algorithm and its test."""
    from rfbench.cli.scaffold import new_algorithm

    if kind != "algorithm":
        raise InputError(f"cannot write a new {kind!r}; it is `rfbench new algorithm NAME`")
    folder = out or Path(name)
    new_algorithm(name, folder)
    console.print(f"wrote {folder}; next:", markup=False, highlight=False)
    console.print(f"  pip install -e {folder}\n  rfbench run {name} --suite tiny-shapes", markup=False, highlight=False)


@app.command("list")
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
    add_plugins(plugin)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    if kind == "suites":
        for name in suite_names():
            table.add_row(name, load_suite(name).description)
    else:
        for name in registry.names(kind):
            table.add_row(name, _description(kind, name))
    console.print(table)


def _description(kind: str, name: str) -> str:
    """The first line of a plugin's docstring, or why it cannot be used."""
    from rfbench.plugins import registry

    try:
        return (registry.find(kind, name).__doc__ or "").strip().partition("\n")[0]
    except InputError as error:
        return f"[red]{escape(str(error))}[/]"


@app.command()
def show(
    suite: Annotated[str, typer.Argument(help="A suite's name, or the path of a .toml file.")],
    overrides: Overrides = None,
) -> None:
    """Print a suite with every default filled in, and its hash."""
    from rfbench.planning.suite_components import suite_components
    from rfbench.suite.loading import load_suite

    parts = suite_components(load_suite(suite, overrides or []))
    loaded = parts.suite
    console.print(f"{loaded.name} version {loaded.version}, hash {parts.suite_hash}", highlight=False)
    console.print_json(data=parts.resolved() | {"algorithms": loaded.model_dump(mode="json")["algorithms"]})
