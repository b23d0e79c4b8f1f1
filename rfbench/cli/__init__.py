"""The commands: parse, call one function, print."""

# isort: off
from rfbench.cli import running, sweeping, files, sampling, judging, rewards, reporting, listing  # noqa: F401  # adds its commands in this order
from rfbench.cli.app import exit_code, main
# isort: on

__all__ = ["exit_code", "main"]
