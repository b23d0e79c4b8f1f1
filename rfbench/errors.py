"""The errors that rfbench raises on purpose; their messages are part of the interface."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RfbenchError(Exception):
    """Something went wrong that the user should read about without a traceback (exit code 1)."""


class InputError(RfbenchError):
    """The user's input cannot work: what is wrong, both values, and what to change (exit code 2)."""


class InterfaceError(RfbenchError):
    """A plugin did not keep to the interface: what it did, and where."""


class NonFiniteError(RfbenchError):
    """A reward, loss or gradient became NaN or infinite; the run stops and keeps its last good checkpoint."""


class DamagedFileError(RfbenchError):
    """A file's content is not what its checksum or format promises."""


class ExhaustedError(RfbenchError):
    """Memory or disk ran out: where, how much there was, and which setting to change."""


class LostProcessError(RfbenchError):
    """Another process of the run has ended, or does not answer."""


class ElsewhereError(RfbenchError):
    """Another process of the run stopped it, and says why; this one has nothing to add."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'prdp'?)"``, or an empty string when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=2, cutoff=0.5)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
