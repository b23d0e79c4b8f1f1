"""One colour, line style and marker per algorithm, the same in every plot and on the page.

Colours are Okabe and Ito's, told apart with every common kind of colour blindness; their yellow is left out, as it
vanishes on white. The line style differs too, so that nothing rests on colour alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
PATHS = (  # the markers as SVG draws them, about a centre of 0, in a square of 10
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "M-3.6,-3.6h7.2v7.2h-7.2z",
    "M0,-4.4L4.4,3.6H-4.4z",
    "M0,-4.9L4.9,0L0,4.9L-4.9,0z",
    "M0,4.4L4.4,-3.6H-4.4z",
    "M-1.6,-4.4h3.2v2.8h2.8v3.2h-2.8v2.8h-3.2v-2.8h-2.8v-3.2h2.8z",
)
LINES: tuple[Any, ...] = (  # solid, dashed, dash-dotted, short dashes, dotted, dash-dot-dotted
    "-",
    (0, (5, 1.5)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (3, 1)),
    (0, (1, 1)),
    (0, (5, 1, 1, 1, 1, 1)),
)


@dataclass(frozen=True)
class Look:
    colour: str
    line: Any  # a line style as matplotlib takes it
    marker: str
    hollow: bool = False

    @property
    def fill(self) -> str:
        return "none" if self.hollow else self.colour

    @property
    def path(self) -> str:
        return PATHS[MARKERS.index(self.marker)]


LOOKS = (
    *(Look(COLOURS[i], LINES[i], MARKERS[i]) for i in range(6)),
    *(Look(COLOURS[i], LINES[(i + 3) % 6], MARKERS[i], hollow=True) for i in range(6)),
)
FIXED = {
    "prdp": 0,
    "ddpo": 1,
    "dpok": 2,
    "rwr": 3,
    "ddpo-group": 4,
    "prdp-offline": 5,
    "prdp-no-clip": 6,
    "rwr-sparse": 9,
}


def looks(algorithms: Iterable[str]) -> dict[str, Look]:
    """A look per algorithm. Known names have fixed ones; any other starts at its hash and takes the next free one.

    The first six looks have a colour of their own; a seventh algorithm shares a colour, with a hollow marker.
    """
    names = sorted(set(algorithms))
    taken = {FIXED[name] for name in names if name in FIXED}
    chosen = {name: LOOKS[FIXED[name]] for name in names if name in FIXED}
    for name in names:
        if name not in FIXED:
            first = int(hashlib.sha256(name.encode()).hexdigest(), 16)
            order = [(first + step) % 6 + half for half in (0, 6) for step in range(6)]
            index = next((i for i in order if i not in taken), order[0])
            taken.add(index)
            chosen[name] = LOOKS[index]
    return {name: chosen[name] for name in names}
