"""The typer app, and what its commands share: options, consoles, exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from rfbench.errors import ElsewhereError, InputError, RfbenchError

if TYPE_CHECKING:
    from rfbench.running.progress import Progress

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


def add_plugins(files: list[Path] | None) -> None:
    for file in files or []:
        from rfbench.plugins import registry

        registry.add_file(file)


def is_main_process() -> bool:
    """Whether this is the process that speaks: the first of those that accelerate has started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def progress(*, live: bool = False) -> Progress:
    """What the command shows of its work; ``live``: on a terminal, a display in place of lines."""
    from rfbench.running.progress import Lines, LiveDisplay, Quiet

    if not is_main_process():
        return Quiet()
    return LiveDisplay(console) if live and console.is_terminal else Lines(console)


def quiet_libraries() -> None:
    """Progress bars and advice of the model libraries would tear the live display."""
    for name, value in {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 failure, 2 bad input, 130 interrupted."""
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
        code: Any = app(args=arguments, standalone_mode=False)
    except ElsewhereError:
        return 1
    except InputError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 2
    except RfbenchError as error:
        errors.print(f"[bold red]failed:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
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
