"""Values as TOML, as a suite's file and ``--set`` take them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any


def inline(value: Any) -> str:
    """A plain value on one line; ``None``, which TOML lacks, is a ``ValueError``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # a TOML string is JSON's but for this
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)  # inf and nan are words in both
    if isinstance(value, Mapping):
        pairs = (f"{key(name)} = {inline(inner)}" for name, inner in value.items() if inner is not None)
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(inline, value))}]"
    raise ValueError(f"{value!r} cannot be written as TOML")


def key(name: str) -> str:
    """A key, in quotation marks where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else inline(name)
