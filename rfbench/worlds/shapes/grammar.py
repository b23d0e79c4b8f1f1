"""The prompts of the world `shapes`: 217,728 sentences, their parsed form, and the splits into seen and unseen.

A sentence shows one object,  "a small red circle at the top left on a blue dotted background",
or two,                       "a red circle left of a white ring on a blue dotted background".

Every sentence has an index (single objects first, then pairs), so the whole set is addressed without being listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from typing import overload

import numpy as np
import numpy.typing as npt

SIZES = ("small", "large")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
POSITIONS = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
RELATIONS = ("left of", "right of", "above", "below")
PATTERNS = ("plain", "striped", "dotted", "checkered")
WORDS = frozenset(  # all that sentences are made of
    " ".join((*SIZES, *COLOURS, *SHAPES, *POSITIONS, *RELATIONS, *PATTERNS, "a an at the on background")).split()
)

# Mixed-radix digits of an index, most significant first. A colour that must differ from the ones before it counts
# among the colours that are left.
_SINGLE_RADIX = (len(SIZES), len(COLOURS), len(SHAPES), len(POSITIONS), len(COLOURS) - 1, len(PATTERNS))
_PAIR_RADIX = (
    len(COLOURS), len(SHAPES), len(RELATIONS), len(COLOURS) - 1, len(SHAPES), len(COLOURS) - 2, len(PATTERNS),
)  # fmt: skip
_SINGLE_GROUNDS, _PAIR_GROUNDS = int(np.prod(_SINGLE_RADIX[-2:])), int(np.prod(_PAIR_RADIX[-2:]))  # per foreground
NUM_SINGLES = int(np.prod(_SINGLE_RADIX))
NUM_PAIRS = int(np.prod(_PAIR_RADIX))
NUM_PROMPTS = NUM_SINGLES + NUM_PAIRS

NUM_SMALL = 45
_UNSEEN_EVERY = 20
SPLITS = ("train", "unseen", "small")


@dataclass(frozen=True)
class Single:
    """One object on a background of another colour; the field names are the attributes that the gold scorer reads."""

    size: str
    colour: str
    shape: str
    position: str
    background: str
    pattern: str

    @property
    def prompt(self) -> str:
        thing = f"a {self.size} {self.colour} {self.shape}"
        return f"{thing} at the {self.position} on a{_n(self.background)} {self.background} {self.pattern} background"

    @property
    def colours(self) -> tuple[str, ...]:
        return self.colour, self.background


@dataclass(frozen=True)
class Pair:
    """Two objects and a background, of three distinct colours; `relation` places the first against the second."""

    colour: str
    shape: str
    relation: str
    second_colour: str
    second_shape: str
    background: str
    pattern: str

    @property
    def prompt(self) -> str:
        first = f"a{_n(self.colour)} {self.colour} {self.shape}"
        second = f"a{_n(self.second_colour)} {self.second_colour} {self.second_shape}"
        ground = f"a{_n(self.background)} {self.background} {self.pattern} background"
        return f"{first} {self.relation} {second} on {ground}"

    @property
    def colours(self) -> tuple[str, ...]:
        return self.colour, self.second_colour, self.background


Scene = Single | Pair


def _n(word: str) -> str:
    return "n" if word[0] in "aeiou" else ""


def _one_of(name: str, words: Sequence[str]) -> str:
    return f"(?P<{name}>{'|'.join(sorted(words, key=len, reverse=True))})"


_GROUND = f"an? {_one_of('background', COLOURS)} {_one_of('pattern', PATTERNS)} background"
_SINGLE = re.compile(
    f"a {_one_of('size', SIZES)} {_one_of('colour', COLOURS)} {_one_of('shape', SHAPES)}"
    f" at the {_one_of('position', POSITIONS)} on {_GROUND}"
)
_PAIR = re.compile(
    f"an? {_one_of('colour', COLOURS)} {_one_of('shape', SHAPES)} {_one_of('relation', RELATIONS)}"
    f" an? {_one_of('second_colour', COLOURS)} {_one_of('second_shape', SHAPES)} on {_GROUND}"
)


def parse(prompt: str) -> Scene:
    """The scene that a sentence of the grammar describes; ValueError for any other text."""
    if match := _SINGLE.fullmatch(prompt):
        scene: Scene = Single(**match.groupdict())
    elif match := _PAIR.fullmatch(prompt):
        scene = Pair(**match.groupdict())
    else:
        raise ValueError(
            f"not a prompt of the world 'shapes': {prompt!r}; such a prompt reads "
            f"{prompt_at(0)!r} or {prompt_at(NUM_SINGLES)!r}"
        )
    if len(set(scene.colours)) < len(scene.colours):
        raise ValueError(f"the colours of one prompt must differ, but {prompt!r} has {', '.join(scene.colours)}")
    if scene.prompt != prompt:
        raise ValueError(f"wrong article in {prompt!r}: it reads {scene.prompt!r}")
    return scene


def scene_at(index: int) -> Scene:
    """The scene of an index in [0, NUM_PROMPTS)."""
    _require_index(index)
    if index < NUM_SINGLES:
        size, colour, shape, position, background, pattern = _digits(index, _SINGLE_RADIX)
        return Single(
            SIZES[size],
            COLOURS[colour],
            SHAPES[shape],
            POSITIONS[position],
            _colours_but(COLOURS[colour])[background],
            PATTERNS[pattern],
        )
    colour, shape, relation, second, second_shape, background, pattern = _digits(index - NUM_SINGLES, _PAIR_RADIX)
    first_colour = COLOURS[colour]
    second_colour = _colours_but(first_colour)[second]
    return Pair(
        first_colour,
        SHAPES[shape],
        RELATIONS[relation],
        second_colour,
        SHAPES[second_shape],
        _colours_but(first_colour, second_colour)[background],
        PATTERNS[pattern],
    )


def _require_index(index: int) -> None:
    if not 0 <= index < NUM_PROMPTS:
        raise IndexError(f"prompt index {index} is outside [0, {NUM_PROMPTS})")


def prompt_at(index: int) -> str:
    """The sentence of an index in [0, NUM_PROMPTS)."""
    _require_index(index)
    first, grounds = (0, _SINGLE_GROUNDS) if index < NUM_SINGLES else (NUM_SINGLES, _PAIR_GROUNDS)
    place = (index - first) % grounds
    beginning, endings = _block(index - place)
    return beginning + endings[place]


@lru_cache(maxsize=64)  # whoever goes through many sentences meets those of one foreground together
def _block(index: int) -> tuple[str, tuple[str, ...]]:
    """How the sentences of the foreground that begins at ``index`` begin, and how each of them ends."""
    scene = scene_at(index)
    endings = _endings(*scene.colours[:-1])
    return scene.prompt.removesuffix(endings[0]), endings


@cache
def _endings(*taken: str) -> tuple[str, ...]:
    """The backgrounds, of colours that are not taken."""
    colours = _colours_but(*taken)
    return tuple(f"a{_n(colour)} {colour} {pattern} background" for colour in colours for pattern in PATTERNS)


def index_of(scene: Scene) -> int:
    """The index of a scene, the inverse of `scene_at`."""
    if isinstance(scene, Single):
        digits = (
            SIZES.index(scene.size),
            COLOURS.index(scene.colour),
            SHAPES.index(scene.shape),
            POSITIONS.index(scene.position),
            _colours_but(scene.colour).index(scene.background),
            PATTERNS.index(scene.pattern),
        )
        return _number(digits, _SINGLE_RADIX)
    pair_digits = (
        COLOURS.index(scene.colour),
        SHAPES.index(scene.shape),
        RELATIONS.index(scene.relation),
        _colours_but(scene.colour).index(scene.second_colour),
        SHAPES.index(scene.second_shape),
        _colours_but(scene.colour, scene.second_colour).index(scene.background),
        PATTERNS.index(scene.pattern),
    )
    return NUM_SINGLES + _number(pair_digits, _PAIR_RADIX)


def _digits(index: int, radix: Sequence[int]) -> list[int]:
    digits = []
    for base in reversed(radix):
        index, digit = divmod(index, base)
        digits.append(digit)
    return digits[::-1]


def _number(digits: Sequence[int], radix: Sequence[int]) -> int:
    number = 0
    for digit, base in zip(digits, radix, strict=True):
        number = number * base + digit
    return number


def _colours_but(*taken: str) -> list[str]:
    return [colour for colour in COLOURS if colour not in taken]


class PromptSet(Sequence[str]):
    """A fixed, ordered subset of the grammar's sentences, each made when it is asked for."""

    def __init__(self, name: str, indices: npt.NDArray[np.int64]) -> None:
        self.name = name
        self.indices = indices  # (prompts,) grammar indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, item: int) -> str: ...
    @overload
    def __getitem__(self, item: slice) -> PromptSet: ...
    def __getitem__(self, item: int | slice) -> str | PromptSet:
        if isinstance(item, slice):
            return PromptSet(self.name, self.indices[item])
        return prompt_at(int(self.indices[item]))

    def __iter__(self) -> Iterator[str]:
        return (prompt_at(int(index)) for index in self.indices)

    def __repr__(self) -> str:
        return f"PromptSet({self.name!r}, {len(self)} prompts)"


@cache
def split(name: str) -> PromptSet:
    """A named prompt set.

    `unseen`: the prompts whose hash is divisible by 20, in no pretraining data. `train`: all the others.
    `small`: 45 single-object prompts of `train`, the first in hash order that keep every attribute balanced.
    """
    hashes = _hash(np.arange(NUM_PROMPTS, dtype=np.uint64))
    unseen = _unseen()
    if name == "unseen":
        return PromptSet(name, np.flatnonzero(unseen))
    if name == "train":
        return PromptSet(name, np.flatnonzero(~unseen))
    if name == "small":
        candidates = np.flatnonzero(~unseen[:NUM_SINGLES])
        return PromptSet(name, _balanced(candidates[np.argsort(hashes[candidates])], NUM_SMALL))
    raise ValueError(f"unknown split {name!r}: choose one of {', '.join(SPLITS)}")


def is_unseen(index: int) -> bool:
    """Whether the prompt of an index belongs to the `unseen` split."""
    return bool(_unseen()[index])


@cache
def _unseen() -> npt.NDArray[np.bool_]:
    return _hash(np.arange(NUM_PROMPTS, dtype=np.uint64)) % np.uint64(_UNSEEN_EVERY) == 0


def _hash(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele et al. 2014): fixed arithmetic, so the splits never move."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _balanced(ordered: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """The first `count` indices of single objects in which no value of an attribute exceeds its even share."""
    words = {"size": SIZES, "colour": COLOURS, "shape": SHAPES, "position": POSITIONS,
             "background": COLOURS, "pattern": PATTERNS}  # fmt: skip
    room = {(field, word): -(-count // len(words[field])) for field in words for word in words[field]}
    chosen: list[int] = []
    for index in ordered:
        attributes = list(asdict(scene_at(int(index))).items())
        if all(room[attribute] for attribute in attributes):
            for attribute in attributes:
                room[attribute] -= 1
            chosen.append(int(index))
            if len(chosen) == count:
                return np.array(chosen)
    raise AssertionError(f"only {len(chosen)} of {count} balanced prompts exist")
