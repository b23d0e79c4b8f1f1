"""Commands on rewards: does one keep to the rules, and is its checkpoint safe to load."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from rfbench.cli.app import SETTINGS, Group, Plugins, console
from rfbench.errors import InputError

reward_app = typer.Typer(
    cls=Group, help="Check a reward, or convert its checkpoint.", no_args_is_help=True, context_settings=SETTINGS
)


class Device(str, Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def check_reward(
    name: Annotated[str, typer.Argument(help="A reward; `rfbench list rewards` shows them.")],
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the reward.")
    ] = None,
    plugin: Plugins = None,
    size: Annotated[int, typer.Option(min=8, help="Side of the pictures that it scores, in pixels.")] = 512,
    device: Annotated[Device, typer.Option(help="Where it computes.")] = Device.auto,
) -> None:
    """Score a few pictures, and verify shape, precision, batching, and that each image meets its own prompt."""
    from rfbench.core.processes import Processes
    from rfbench.plugins.component import find_component
    from rfbench.suite.loading import apply_override
    from rfbench.suite.suite import Compute, PluginRef
    from rfbench.testing.reward_check import check

    data: dict[str, Any] = {"name": name}
    for option in options or []:
        apply_override(data, option)
    if data["name"] != name:
        raise InputError(f"--set name={data['name']}: the reward is named by the argument, {name!r}")
    part = find_component("rewards", PluginRef.model_validate(data))
    reward = part.make(Processes(Compute.model_validate({"device": device.value})).device)
    report = check(reward, name, size)
    console.print(f"{name}, in {reward.unit}; version {reward.version}", markup=False, highlight=False, soft_wrap=True)
    if report.scores is not None:
        scores = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("picture", "prompt", "score"):
            scores.add_column(heading, justify="right" if heading == "score" else "left")
        for picture, prompt, score in zip(report.pictures, report.prompts, report.scores, strict=True):
            scores.add_row(picture, prompt, f"{score:.6f}")
        console.print(scores)
    findings = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for finding in report.findings:
        verdict = "[green]pass[/]" if finding.passed else "[bold red]FAIL[/]"
        findings.add_row(verdict, finding.check, escape(finding.detail))
    console.print(findings)
    raise typer.Exit(0 if report.passed else 1)


def convert_checkpoint(
    source: Annotated[Path, typer.Argument(metavar="FILE.pt", help="A checkpoint that torch.save wrote.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The new file.")],
    trust: Annotated[
        bool, typer.Option("--trust", help="Let the pickle run the code that it may hold: you know who made it.")
    ] = False,
) -> None:
    """Write a checkpoint's tensors as safetensors, which can hold no code."""
    from rfbench.rewards.weights import convert

    count = convert(source, target, trust=trust)
    console.print(f"wrote {count} tensors to {target}", markup=False, highlight=False, soft_wrap=True)
