"""One colour, line style and marker per algorithm, the same in every plot and on the page.

Colours are Okabe and Ito's, told apart with every common kind of colour blindness; their yellow is left out, as it
vanishes on white. The line style differs too, so that nothing rests on colour alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Look:
    colour: str
    line: Any  # a line style as matplotlib takes it
    marker: str


LOOKS = (
    Look("#0072B2", "-", "o"),
    Look("#D55E00", (0, (5, 1.5)), "s"),
    Look("#009E73", (0, (6, 1.5, 1, 1.5)), "^"),
    Look("#CC79A7", (0, (3, 1)), "D"),
    Look("#E69F00", (0, (1, 1)), "v"),
    Look("#56B4E9", (0, (5, 1, 1, 1, 1, 1)), "P"),
)
FIXED = {"prdp": 0, "ddpo": 1, "dpok": 2, "rwr": 3, "ddpo-group": 4, "rwr-sparse": 5}


def looks(algorithms: Iterable[str]) -> dict[str, Look]:
    """A look per algorithm. Known names have fixed ones; any other starts at its hash and takes the next free one."""
    names = sorted(set(algorithms))
    taken = {FIXED[name] for name in names if name in FIXED}
    chosen = {name: LOOKS[FIXED[name]] for name in names if name in FIXED}
    for name in names:
        if name not in FIXED:
            first = int(hashlib.sha256(name.encode()).hexdigest(), 16)
            order = [(first + step) % len(LOOKS) for step in range(len(LOOKS))]
            index = next((i for i in order if i not in taken), order[0])
            taken.add(index)
            chosen[name] = LOOKS[index]
    return chosen
