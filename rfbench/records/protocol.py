"""How a run's training differs from its suite's common protocol, in words; read off a suite with every default in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def sampler_changes(suite: Mapping[str, Any], variant: str) -> str:
    """What an algorithm's training sampler changes of the suite's: ``"num_steps 10 (50)"``; empty for none."""
    own = suite.get("algorithms", {}).get(variant, {}).get("sampler") or {}
    common = suite.get("sampler", {})
    changes = [
        f"{name} {value} ({common.get(name, '?')})"
        for name, value in own.items()
        if name != "window" and value is not None and value != common.get(name)
    ]
    window = own.get("window")
    if window is not None:
        changes.append(f"noise in {window['size']} steps of an epoch, moving {window['moves']}")
    return ", ".join(changes)
