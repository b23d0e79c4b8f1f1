"""Writes the table of docs/suites.md that says what a run of each paper suite takes on one card.

    python -m rfbench_benchmarks.pages.costs

A test keeps it equal to what is counted.
"""

from __future__ import annotations

import re
from pathlib import Path

from rfbench.planning.arithmetic import arithmetic_of, forward_flops
from rfbench.planning.cards import CARDS, PRECISIONS, days
from rfbench.planning.plan import make_outline
from rfbench.planning.suite_components import suite_components
from rfbench.suite.loading import load_suite

PAGE = Path(__file__).parents[2] / "docs" / "suites.md"
SUITES = (
    "small-hpsv2", "small-pickscore", "large-hpsv2", "large-pickscore", "large-multireward", "kl-aesthetic",
    "online-offline",
)  # fmt: skip
BLOCK = re.compile(r"(<!-- costs -->\n).*?(\n<!-- end -->)", re.DOTALL)


def table() -> str:
    """Days on one card for the first run that each suite lists, by card and precision; H200 has H100's rates."""
    kinds = [(card, kind) for card in CARDS if card.name != "H200" for kind in PRECISIONS]
    heads = [f"{card.name}, {PRECISIONS[kind]}" for card, kind in kinds]
    lines = [f"| suite | run | operations | {' | '.join(heads)} |", f"|---|---|---:|{'---:|' * len(heads)}"]
    suites = [load_suite(name) for name in SUITES]
    [model] = {suite_components(suite).model for suite in suites}
    forward = forward_flops(model)
    assert forward is not None
    for suite in suites:
        label = next(iter(suite.algorithms))
        outline = make_outline(suite, label, seed=0)
        flops = arithmetic_of(outline, forward).flops(outline.totals())
        cells = [f"{days(flops, card, kind):.3g}" for card, kind in kinds]
        lines.append(f"| `{suite.name}` | `{label}` | {flops:.2e} | {' | '.join(cells)} |")
    return "\n".join(lines)


def filled(page: str) -> str:
    """``page`` with the table written anew."""
    return BLOCK.sub(lambda block: block[1] + table() + block[2], page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
