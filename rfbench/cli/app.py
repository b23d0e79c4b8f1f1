"""The typer app, and what its commands share: options, consoles, exit codes."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from rfbench.errors import ElsewhereError, InputError, RfbenchError, file_error

if TYPE_CHECKING:
    from rfbench.running.progress import Progress


class _Command(TyperCommand):
    """A command whose flags stand in its help without a type: ``--resume`` takes no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """The same for the flags of a group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def _without_types(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = " "  # an empty one would be replaced by <bool>
    return parameters


SETTINGS = {"help_option_names": ["-h", "--help"]}
commands = typer.Typer(
    cls=Group,
    help="Compare black-box reward-finetuning algorithms for diffusion models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Whoever read this has gone, as `| head` does: the command goes on and says no more."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


console = _Output()
errors = _Output(stderr=True)
INTERRUPTED = 130  # what typer returns after Ctrl-C

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a field of the suite, which `rfbench show SUITE` lists. Repeatable.",
    ),
]


def _add_plugins(context: typer.Context, files: list[Path] | None) -> list[Path] | None:
    if files and not context.resilient_parsing:
        from rfbench.plugins import registry

        for file in files:
            registry.add_file(file)
    return files


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        callback=_add_plugins,
        help="Also use the algorithms, rewards, models and prompt sets defined in a Python file, "
        "each by its class's name: BrightReward as bright-reward.",
    ),
]


def add(group: typer.Typer, name: str, function: Callable[..., Any], panel: str | None, example: str) -> None:
    """Adds a command to a group: under a heading of the list of commands, with an example below its help."""
    add_command = group.command(
        name, cls=_Command, rich_help_panel=panel, epilog=f"Example: {example}", context_settings=SETTINGS
    )
    add_command(function)


def _print_version(wanted: bool) -> None:
    if wanted:
        from rfbench import __version__

        console.print(f"rfbench {__version__}", highlight=False)
        raise typer.Exit


@commands.callback()
def _before_every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    _quiet_libraries()


def is_main_process() -> bool:
    """Whether this is the process that speaks: the first of those that accelerate has started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def is_live(output: Console) -> bool:
    """Whether something on the screen can be redrawn. A file is no screen, whatever variable asks for colour in it."""
    return output.is_interactive and output.file.isatty()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Says what takes a while, on stderr: beside a spinner on a terminal, as one line elsewhere."""
    if not is_main_process():
        yield
    elif is_live(errors):
        with errors.status(escape(what)):
            yield
    else:
        errors.print(f"{what} ...", markup=False, highlight=False, soft_wrap=True)
        yield


def progress(*, live: bool = False) -> Progress:
    """What the command shows of its work; ``live``: on a terminal, a display in place of lines."""
    from rfbench.running.progress import Lines, LiveDisplay, Quiet

    if not is_main_process():
        return Quiet()
    return LiveDisplay(console) if live and is_live(console) else Lines(console)


def _quiet_libraries() -> None:
    """Progress bars and advice of the model libraries would tear the live display."""
    for name, value in {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 failure, 2 bad input, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the encoding lacks is no reason to fail
    if "RANK" not in os.environ:
        sys.exit(exit_code(arguments))
    code = 1
    try:
        code = exit_code(arguments)
    except Exception:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # one of several processes: their communication threads can crash an ordinary exit


def exit_code(arguments: list[str] | None) -> int:
    try:
        code: Any = commands(args=arguments, standalone_mode=False)
    except KeyboardInterrupt:  # before a command took it
        code = INTERRUPTED
    except ElsewhereError:
        return 1
    except InputError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 2
    except RfbenchError as error:
        errors.print(f"[bold red]failed:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # as typer's help ends where its reader has gone
            return 0
        errors.print(f"[bold red]failed:[/] a plugin or library called sys.exit({error.code!r}); it must not")
        return 1
    except OSError as error:
        explained = file_error(error)
        if explained is None:
            raise
        errors.print(f"[bold red]error:[/] {escape(explained)}", highlight=False, soft_wrap=True)
        return 2
    except Exception as error:
        show_usage = getattr(error, "show", None)  # click's usage errors print themselves
        if show_usage is None:
            raise
        show_usage()
        return 2
    if code == INTERRUPTED:
        errors.print("interrupted; --resume goes on from the last checkpoint")
    return code if isinstance(code, int) else 0
