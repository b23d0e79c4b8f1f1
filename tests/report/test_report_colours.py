"""The same look for the same algorithm, and no two alike while looks last."""

from __future__ import annotations

from rfbench.report.render.colours import LOOKS, looks


def test_known_algorithms_look_the_same_whoever_stands_beside_them() -> None:
    assert looks(["prdp"])["prdp"] == looks(["mine", "ddpo", "prdp", "rwr"])["prdp"]


def test_twelve_algorithms_have_twelve_looks() -> None:
    names = [f"variant-{i}" for i in range(10)] + ["prdp", "ddpo"]
    found = looks(names)
    assert len(set(found.values())) == 12 == len(LOOKS)
    assert looks(reversed(names)) == found


def test_six_algorithms_have_six_colours() -> None:
    assert len({look.colour for look in looks(["prdp", "a", "b", "c", "d", "e"]).values()}) == 6


def test_more_algorithms_than_looks_still_draw() -> None:
    assert len(looks(f"a{i}" for i in range(40))) == 40
