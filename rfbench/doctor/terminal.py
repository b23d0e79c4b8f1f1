"""The diagnosis for a terminal 80 columns wide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rfbench.doctor.diagnosis import Diagnosis
from rfbench.doctor.files import FileSet
from rfbench.sources import remedies

if TYPE_CHECKING:
    from rfbench.estimate import Speed

COLOURS = {"present": "green", "missing": "red", "wrong": "red"}


def render(found: Diagnosis, speed: Speed | None) -> RenderableType:
    """What is here and what a run costs; ``speed`` is None where nothing was measured."""
    parts = (_files(found), _libraries(found), _device(), _costs(found, speed))
    return Group(*(line for part in parts for line in (part, Text())))


def verdict(found: Diagnosis, command_line_name: str) -> list[str]:
    """Whether the suite can run; if not, every reason and the lines to type, which may be longer than a terminal's."""
    name = found.suite.name
    if found.can_run:
        return [f"{name} can run on this machine."]
    lines = [f"{name} cannot run on this machine yet:"]
    if found.missing:
        lines.append(f"- {len(found.missing)} of {len(found.files)} file sets are missing")
        lines += [f"  {line}" for line in remedies(found.missing, command_line_name)]
    return [*lines, *(f"- {problem}" for problem in found.problems)]


def _files(found: Diagnosis) -> RenderableType:
    if not found.files:
        return Text(f"Files: {found.suite.name} reads no published files")
    table = _table("Files", "setting, and where its files come from", "GB", "state")
    for files in found.files:
        source = files.need.source
        size = files.bytes / 1e9 or source.gigabytes
        commit = "" if source.is_local else f" at {(files.commit or source.revision)[:8]}"
        table.add_row(
            f"{files.need.setting}\n  [dim]{escape(source.path)}{commit}[/]",
            "?" if size is None else "<0.01" if size < 0.01 else f"{size:.2f}",
            f"[{COLOURS[files.status]}]{files.status}[/]{_verified(files)}",
        )
    return table


def _verified(files: FileSet) -> str:
    if files.verified is None or files.status == "missing":
        return ""
    return f", {files.verified} of {files.count} checked"


def _libraries(found: Diagnosis) -> Text:
    shown = [f"{library.name} {library.version or 'missing'}" for library in found.libraries]
    wrong = [library.name for library in found.libraries if library.problems]
    verdict = f"not right: {', '.join(wrong)}" if wrong else "no conflict among them that is known"
    return Text(f"Libraries: {', '.join(shown)}; {verdict}")


def _device() -> Text:
    import torch

    if not torch.cuda.is_available():
        return Text("Device: torch sees no GPU, so runs would be on the CPU")
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return Text(f"Device: {', '.join(f'{d.name} with {d.total_memory / 2**30:.0f} GiB' for d in devices)}")


def _costs(found: Diagnosis, speed: Speed | None) -> RenderableType:
    suite = found.suite
    columns = ("algorithm", "reward queries", "UNet forwards", "UNet backwards", "to evaluate", "hours")
    table = _table(f"Cost of one run, {suite.epochs} epochs", *columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for outline in found.outlines:
        totals = outline.totals()
        counts = (totals.reward_queries, totals.training_forwards, totals.training_backwards)
        hours = f"{speed.seconds(totals) / 3600:.2f}" if speed else "?"
        table.add_row(outline.label, *(f"{n:,}" for n in (*counts, totals.evaluation_forwards)), hours)
    if speed:
        note = f"Hours of network calls alone on {speed.device}, from one chunk that was timed."
    else:
        note = "Hours are not measured: --measure loads the model and times it, once everything is here."
    return Group(table, Text(f"To evaluate: UNet forwards of all of a run's evaluations. {note}", "dim"))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(columns):
        table.add_column(heading, overflow="fold", no_wrap=number == 0)
    return table
