"""Commands that judge what was trained."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from rfbench.cli.app import Plugins, add_plugins, app, console, quiet_libraries


class TierChoice(str, Enum):
    quick = "quick"
    final = "final"


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as results/large-hpsv2/prdp/seed-0.")],
    tier: Annotated[
        TierChoice, typer.Option(help="quick: as during training; final: the suite's full evaluation.")
    ] = TierChoice.final,
    plugin: Plugins = None,
) -> None:
    """Evaluate a run's last checkpoint; the records go to TIER.jsonl in its folder."""
    quiet_libraries()
    add_plugins(plugin)
    from rfbench.judging import evaluate_run
    from rfbench.progress import Lines, Quiet

    progress = Lines(console) if os.environ.get("RANK", "0") == "0" else Quiet()
    written = evaluate_run(run, tier.value, progress)
    console.print(f"written: {written}", markup=False, highlight=False, soft_wrap=True)
