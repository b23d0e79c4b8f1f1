"""The commands: parse, call one function, print."""

# isort: off
from rfbench.cli import running, judging, reporting, listing  # noqa: F401  # each adds its commands to the app, in this order
from rfbench.cli.app import exit_code, main
# isort: on

__all__ = ["exit_code", "main"]
