"""How long runs take on the cards that people have, for a terminal 80 columns wide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rfbench.planning.arithmetic import Arithmetic
from rfbench.planning.cards import ASSUMED_SHARE, CARDS, PRECISIONS, USABLE, days, duration, find_card, share_of_rate
from rfbench.planning.plan import Outline

if TYPE_CHECKING:
    from rfbench.inference.timing import Speed

COUNTS = (1, 8)  # cards of one machine


def run_days(outline: Outline, counted: Arithmetic, speed: Speed | None, memory: int | None = None) -> RenderableType:
    """One run's days on each card, and what they rest on.

    Args:
        speed: what was measured here, if anything was.
        memory: bytes that the run takes of a card, where they were counted.
    """
    totals, precision = outline.totals(), outline.suite.compute.precision
    flops = counted.flops(totals)
    size = f"{flops:.3g} operations, {counted.forward_flops:.3g} a forward"
    if not counted.fills_a_gpu:
        text = f"{outline.label}: {size}. Networks this small do not fill a GPU: what counts is the time measured."
        return Text(text, "dim")
    notes = [f"Network calls alone: {size}; the suite's precision is {precision}."]
    if speed is not None:
        notes.append(_measured(speed, flops, speed.seconds(totals), precision))
    small = [card.name for card in CARDS if memory is not None and memory > USABLE * card.gigabytes * 1e9]
    if small:
        notes.append(f"As it is set, the run does not fit on: {', '.join(small)}.")
    return card_days(f"one run of {outline.label}", flops, notes)


def card_days(what: str, flops: float, notes: list[str]) -> RenderableType:
    """A line per card: what ``flops`` take in each precision, on one card and on eight."""
    table = Table(title=escape(f"Time of {what}, by precision"), title_justify="left", box=box.SIMPLE_HEAD)
    table.pad_edge, table.padding = False, (0, 1, 0, 0)
    table.add_column("card")
    for count in COUNTS:
        for name in PRECISIONS.values():
            table.add_column(f"{count} x {name}", justify="right")
    for card in CARDS:
        cells = [duration(days(flops, card, kind, count)) for count in COUNTS for kind in PRECISIONS]
        table.add_row(f"{card.name} {card.gigabytes} GB", *cells)
    shares = f"{ASSUMED_SHARE['fp32']:.0%} of a card's published dense rate in fp32, {ASSUMED_SHARE['tf32']:.0%} else"
    assumed = f"Assumed, not measured: {shares}; eight cards as eight times one."
    return Group(table, Text(" ".join([*notes, assumed]), "dim"))


def _measured(speed: Speed, flops: float, seconds: float, precision: str) -> str:
    card, text = find_card(speed.device), f"Measured here, on {speed.device}: {duration(seconds / 86_400)}"
    if card is None:
        return f"{text}."
    return f"{text}, {share_of_rate(flops, seconds, card, precision):.0%} of its published rate."
