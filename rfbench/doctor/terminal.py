"""The diagnosis for a terminal 80 columns wide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rfbench.doctor.card_days import run_days
from rfbench.doctor.diagnosis import Diagnosis
from rfbench.doctor.files import FileSet
from rfbench.hub.sources import remedies
from rfbench.planning.cards import CARDS, days

if TYPE_CHECKING:
    from rfbench.inference.timing import Speed

WORTH_NAMING = 0.01  # of a run's memory
OF_ALL = next(card for card in CARDS if card.name == "H100")  # on which all algorithms are set side by side
COLOURS = {"present": "green", "missing": "red", "wrong": "red"}


def render(found: Diagnosis, speed: Speed | None) -> RenderableType:
    """What is here and what a run costs; ``speed`` is None where nothing was measured."""
    parts = (_files(found), _libraries(found), _device(found), _costs(found, speed))
    return Group(*(line for part in parts for line in (part, Text())))


def verdict(found: Diagnosis, command_line_name: str) -> list[str]:
    """Whether the suite can run; if not, every reason and the lines to type, which may be longer than a terminal's."""
    name = found.suite.name
    remarks = [f"- {remark}" for remark in found.remarks]
    if found.can_run:
        without = [f"- but not {label}: {problem}" for label, problem in found.misfits.items()]
        return [f"{name} can run on this machine.", *without, *remarks]
    lines = [f"{name} cannot run on this machine yet:"]
    if found.missing:
        lines.append(f"- {len(found.missing)} of {len(found.files)} file sets are missing")
        lines += [f"  {line}" for line in remedies(found.missing, command_line_name)]
    return [*lines, *(f"- {problem}" for problem in found.problems), *remarks]


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


def _device(found: Diagnosis) -> Text:
    here = ", ".join(f"{gpu.name} with {gpu.bytes / 2**30:.0f} GiB" for gpu in found.gpus)
    text = f"Device: {here or 'torch sees no GPU, so runs would be on the CPU'}"
    if found.suite.compute.device == "cpu":
        return Text(f"{text}. The suite asks for the CPU (compute.device)")
    if found.demand is None:
        return Text(f"{text}. Memory: not known without the model's files")
    parts = sorted(found.demand.components, key=lambda part: -part.bytes)
    largest = ", ".join(
        f"{part.name}{'' if part.when == 'always' else f' ({part.when})'} {_memory(part.bytes)}"
        for part in parts
        if part.when != "host" and part.bytes > WORTH_NAMING * found.demand.bytes
    )
    return Text(f"{text}. A run on a GPU takes about {_memory(found.demand.bytes)} at its peak: {largest}")


def _memory(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _costs(found: Diagnosis, speed: Speed | None) -> RenderableType:
    suite = found.suite
    counted = found.demand.arithmetic if found.demand and found.demand.arithmetic.fills_a_gpu else None
    columns = ["algorithm", "queries", "forwards", "backwards", "to evaluate"]
    columns += [f"{OF_ALL.name} days"] if counted else []
    columns += ["hours"] if speed else []
    table = _table(f"Cost of one run, {suite.epochs} epochs", *columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for outline in found.outlines:
        totals = outline.totals()
        counts = (totals.reward_queries, totals.training_forwards, totals.training_backwards)
        cells = [f"{n:,}" for n in (*counts, totals.evaluation_forwards)]
        cells += [f"{days(counted.flops(totals), OF_ALL, suite.compute.precision):,.3g}"] if counted else []
        cells += [f"{speed.seconds(totals) / 3600:.2f}"] if speed else []
        table.add_row(outline.label, *cells)
    notes = [
        "Forwards and backwards: latents through the denoiser. To evaluate: forwards of all of a run's evaluations."
    ]
    if speed:
        notes.append(f"Hours: network calls alone on {speed.device}, from one chunk that was timed.")
    else:
        notes.append("Hours: not measured; --measure loads the model and times it, once everything is here.")
    parts: list[RenderableType] = [table, Text(" ".join(notes), "dim")]
    if found.demand and found.outlines:
        parts += [Text(), run_days(found.outlines[0], found.demand.arithmetic, speed, found.demand.bytes)]
    return Group(*parts)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(columns):
        table.add_column(heading, overflow="fold", no_wrap=number == 0)
    return table
