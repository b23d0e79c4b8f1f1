"""A plugin's state must come back from a checkpoint: tried before days are spent, not at the first resume."""

from __future__ import annotations

import io
from typing import Any

import torch

from rfbench.errors import InterfaceError

PLAIN = (torch.Tensor, bool, int, float, str, bytes, type(None))


def require_plain(state: Any, whose: str) -> Any:
    """``state``, if it can be saved and loaded with ``weights_only``; an ``InterfaceError`` names the part that cannot.

    ``whose`` is such as "the algorithm 'prdp'".
    """
    if _comes_back(state):
        return state
    name, part = _culprit("state_dict()", state)
    raise InterfaceError(
        f"{whose}: {name} is a {type(part).__module__}.{type(part).__qualname__}, which a checkpoint can save but not "
        "safely load; use tensors, numbers, strings, None, and lists, tuples and dicts of them"
    )


def _comes_back(value: Any) -> bool:
    """Tried at every checkpoint, so of large things that are known to come back only the type is looked at."""
    if type(value) in PLAIN:
        return True
    if type(value) is dict:
        return all(map(_comes_back, (*value.keys(), *value.values())))
    if type(value) in (list, tuple):
        return all(map(_comes_back, value))
    content = io.BytesIO()
    try:
        torch.save(value, content)
        content.seek(0)
        torch.load(content, weights_only=True)
    except Exception:  # pickle and torch raise many kinds, and a plugin's class its own
        return False
    return True


def _culprit(name: str, value: Any) -> tuple[str, Any]:
    """The innermost part of ``value`` that does not come back."""
    parts = value.items() if type(value) is dict else enumerate(value) if type(value) in (list, tuple) else ()
    for key, part in parts:
        if not _comes_back(part):
            return _culprit(f"{name}[{key!r}]", part)
    return name, value
