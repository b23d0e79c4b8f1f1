"""The commands: parse, call one function, print."""

# isort: off  # each adds its commands to the app, in this order
from rfbench.cli import running, files, sampling, judging, reporting, listing  # noqa: F401
from rfbench.cli.app import exit_code, main
# isort: on

__all__ = ["exit_code", "main"]
