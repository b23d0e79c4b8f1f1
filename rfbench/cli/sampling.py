"""Commands that use what a run trained."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from rfbench.cli.app import Plugins, console, errors, working

Run = Annotated[Path, typer.Argument(help="A run's folder: results/SUITE/ALGORITHM/seed-N.", metavar="RUN")]


class ExportFormat(str, Enum):
    native = "native"
    kohya = "kohya"


def sample_images(
    run: Run,
    prompt: Annotated[list[str], typer.Option(help="What to draw; may be given several times.")],
    images: Annotated[int, typer.Option(min=1, max=100_000, help="Images of each prompt.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Key of the noise; the same for every run and for --base.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the PNG files go.")] = Path("images"),
    base: Annotated[bool, typer.Option("--base", help="Draw with the model as it was before training.")] = False,
    plugin: Plugins = None,
) -> None:
    """Draw images of prompts with what a run trained."""
    from rfbench.core.policy import POLICY, REFERENCE
    from rfbench.core.processes import Processes
    from rfbench.core.prompts import require_text
    from rfbench.inference import generate
    from rfbench.running import weights
    from rfbench.suite.suite import Compute

    for text in prompt:
        require_text(text, "--prompt")
    with working(f"drawing {len(prompt) * images} images with {'the base model of ' if base else ''}{run}"):
        policy, suite = weights.load_policy(run, Processes(Compute()).device)
        whose, size = REFERENCE if base else POLICY, suite.compute.pairs_per_call
        unknown = dict.fromkeys(word for text in prompt for word in policy.model.unknown_words(text))
        pictures = generate.sample(policy, prompt, images=images, seed=seed, chunk_size=size, weights=whose)
    if unknown:
        words = escape(", ".join(unknown))
        errors.print(f"[yellow]note:[/] the model of {escape(suite.name)} knows no word {words}", highlight=False)
    for path in generate.save(pictures, prompt, images, out):
        console.print(path, markup=False, highlight=False, soft_wrap=True)


def export_weights(
    run: Run,
    out: Annotated[Path | None, typer.Option(help="The new folder; by default 'weights' in the run's.")] = None,
    format: Annotated[
        ExportFormat, typer.Option(help="native: that of the model's own; kohya: of a LoRA, for ComfyUI and A1111.")
    ] = ExportFormat.native,
    plugin: Plugins = None,
) -> None:
    """Write what a run trained in the format of its model's library, such as diffusers."""
    import torch

    from rfbench.running import weights
    from rfbench.running.folder import RunFolder

    if out is not None:
        weights.require_new(out)
    RunFolder(run, writer=False).require_run()
    source = RunFolder(run, writer=out is None)  # an export into the run's folder keeps other writers out
    with working(f"writing what {run} trained"):
        policy, _ = weights.load_policy(source.path, torch.device("cpu"))
        if out is None:
            folder = weights.save(policy, source.path, format.value)
        else:
            folder = weights.export(policy, out, format.value)
    console.print(f"wrote {folder}", markup=False, highlight=False, soft_wrap=True)
