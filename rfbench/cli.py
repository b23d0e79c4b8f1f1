"""The commands: parse, call one function, print."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rfbench.errors import InputError, RfbenchError

if TYPE_CHECKING:
    from rfbench.plan import Plan
    from rfbench.progress import Progress

app = typer.Typer(
    help="Compare black-box reward-finetuning algorithms for diffusion models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()
errors = Console(stderr=True)
INTERRUPTED = 130  # what typer returns after Ctrl-C

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the suite.")
]

Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Also use the algorithms, rewards, models and prompt sets defined in a Python file, "
        "each by its class's name: BrightReward as bright-reward.",
    ),
]


@app.command()
def run(
    algorithm: Annotated[str, typer.Argument(help="An algorithm, or a variant that the suite names.")],
    suite: Annotated[str, typer.Option(help="A suite's name, or the path of a .toml file.")],
    seed: Annotated[int, typer.Option(min=0, help="Key of the run's prompts and noise.")] = 0,
    out: Annotated[Path, typer.Option(help="Root of the results.")] = Path("results"),
    overrides: Overrides = None,
    plugin: Plugins = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over, removing what is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what the run would spend, and stop.")] = False,
) -> None:
    """Finetune with one algorithm on one suite, in OUT/SUITE/ALGORITHM/seed-N."""
    if resume and overwrite:
        raise InputError("--resume goes on with a run and --overwrite starts over: give one of them")
    from rfbench.suite import load_suite

    loaded = load_suite(suite, overrides or [])
    _quiet_libraries()
    _add_plugins(plugin)
    from rfbench.plan import make_plan

    plan = make_plan(loaded, algorithm, seed)
    if dry_run:
        _print_estimate(plan)
        return
    from rfbench.trainer import train

    train(plan, out, _progress(), resume=resume, overwrite=overwrite)


@app.command("compare")
def compare_runs(
    folders: Annotated[list[Path], typer.Argument(help="Folders with runs, searched at any depth.")],
    out: Annotated[
        Path | None, typer.Option(help="Where files go; by default 'comparison' in the first folder.")
    ] = None,
    x: Annotated[
        str, typer.Option("--x", help="Horizontal axis of the curves: queries, epochs or seconds.")
    ] = "queries",
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page with everything.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for scripts.")] = False,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Compare runs of different suites or budgets.")
    ] = False,
) -> None:
    """Compare finished runs: the verdict and a table here; CSV, Markdown and plots in OUT."""
    from rfbench import report

    comparison = report.compare(folders, out or folders[0] / "comparison", allow_mixed=allow_mixed, x=x, html=html)
    if as_json:
        print(comparison.to_json())
        return
    console.print(report.render_comparison(comparison))
    console.print("written: " + ", ".join(map(str, comparison.files)), markup=False, highlight=False, soft_wrap=True)


@app.command()
def watch(folders: Annotated[list[Path], typer.Argument(help="Folders with runs, searched at any depth.")]) -> None:
    """Watch running and finished runs, refreshing until Ctrl-C."""
    from rfbench import report

    report.watch(folders, console)


@app.command("new")
def new_plugin(
    kind: Annotated[str, typer.Argument(help="algorithm", metavar="KIND")],
    name: Annotated[str, typer.Argument(help="Its name: lower-case words joined by hyphens.")],
    out: Annotated[Path | None, typer.Option(help="The new folder; by default the name, here.")] = None,
) -> None:
    """Write a small installable package with a working algorithm and its test."""
    from rfbench.scaffold import new_algorithm

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
    from rfbench import plugins
    from rfbench.suggest import did_you_mean
    from rfbench.suite import load_suite, suite_names

    kinds = (*plugins.KINDS, "suites")
    if kind not in kinds:
        raise InputError(f"cannot list {kind!r}{did_you_mean(kind, kinds)}; it is one of {', '.join(kinds)}")
    _add_plugins(plugin)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    if kind == "suites":
        for name in suite_names():
            table.add_row(name, load_suite(name).description)
    else:
        for name in plugins.names(kind):
            table.add_row(name, _description(kind, name))
    console.print(table)


def _description(kind: str, name: str) -> str:
    """The first line of a plugin's docstring, or why it cannot be used."""
    from rfbench import plugins

    try:
        return (plugins.find(kind, name).__doc__ or "").strip().partition("\n")[0]
    except InputError as error:
        return f"[red]{_escape(str(error))}[/]"


@app.command()
def show(
    suite: Annotated[str, typer.Argument(help="A suite's name, or the path of a .toml file.")],
    overrides: Overrides = None,
) -> None:
    """Print a suite with every default filled in, and its hash."""
    from rfbench.suite import load_suite

    loaded = load_suite(suite, overrides or [])
    console.print(f"{loaded.name} version {loaded.version}, hash {loaded.hash}", highlight=False)
    console.print_json(loaded.model_dump_json())


def _print_estimate(plan: Plan) -> None:
    from rfbench.estimate import estimate

    spent = estimate(plan)
    suite = plan.suite
    table = Table(title=f"{plan.label} on {suite.name}, {suite.epochs} epochs", title_justify="left", show_header=False)
    table.add_row("prompts x images per epoch", f"{spent.prompts_per_epoch} x {spent.images_per_prompt}")
    table.add_row("reward queries", f"{spent.reward_queries:,}")
    table.add_row("UNet forwards, training", f"{spent.training_forwards:,}")
    table.add_row("UNet backwards, training", f"{spent.training_backwards:,}")
    table.add_row("UNet forwards, evaluation", f"{spent.evaluation_forwards:,}")
    table.add_row("estimated time", f"{spent.seconds / 60:.1f} min of network calls at this machine's speed")
    table.add_row("estimated peak memory", f"{spent.memory_bytes / 2**30:.2f} GiB")
    console.print(table)


def _add_plugins(files: list[Path] | None) -> None:
    for file in files or []:
        from rfbench import plugins

        plugins.add_file(file)


def _progress() -> Progress:
    from rfbench.progress import Lines, LiveDisplay, Quiet

    if os.environ.get("RANK", "0") != "0":
        return Quiet()
    return LiveDisplay(console) if console.is_terminal else Lines(console)


def _quiet_libraries() -> None:
    """Progress bars and advice of the model libraries would tear the live display."""
    for name, value in {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 failure, 2 bad input, 130 interrupted."""
    if "RANK" not in os.environ:
        sys.exit(_exit_code(arguments))
    code = 1
    try:
        code = _exit_code(arguments)
    except Exception:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # one of several processes: their communication threads can crash an ordinary exit


def _exit_code(arguments: list[str] | None) -> int:
    try:
        code: Any = app(args=arguments, standalone_mode=False)
    except InputError as error:
        errors.print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False, soft_wrap=True)
        return 2
    except RfbenchError as error:
        errors.print(f"[bold red]failed:[/] {_escape(str(error))}", highlight=False, soft_wrap=True)
        return 1
    except Exception as error:
        show_usage = getattr(error, "show", None)  # click's usage errors print themselves
        if show_usage is None:
            raise
        show_usage()
        return 2
    if code == INTERRUPTED:
        errors.print("interrupted; --resume goes on from the last checkpoint")
    return code if isinstance(code, int) else 0


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
