"""Names that become files and folders: which can, and how any text is made into one."""

from __future__ import annotations

import hashlib
import re

LONGEST_NAME = 200  # bytes; file systems take 255, and a name may get an ending
LONGEST_WORDS = 60  # characters


def check_name(name: str) -> str:
    """``name``, if it can be part of a path: a folder or a file of exactly this name; else a ``ValueError``."""
    wrong = None
    if not name or name != name.strip():
        wrong = "is empty, or begins or ends with a space"
    elif name.startswith("."):
        wrong = "begins with a dot"
    elif {"/", "\\"} & set(name) or not name.isprintable():
        wrong = "holds a slash, a backslash or a character that cannot be printed"
    elif len(name.encode(errors="replace")) > LONGEST_NAME:
        wrong = f"has {len(name.encode(errors='replace'))} bytes, of {LONGEST_NAME} at most"
    if wrong is not None:
        raise ValueError(f"{name[:LONGEST_NAME]!r} cannot name a folder or file of the results, since it {wrong}")
    return name


def as_file_name(text: str) -> str:
    """A part of a file's name for any text, a record's or a user's: another one for another text.

    Letters, digits, ``-``, ``_`` and ``.`` stay; where something else is replaced, some digits of the text's checksum
    tell it from others.
    """
    name = re.sub(r"[^\w.-]", "-", text)[:LONGEST_WORDS].strip(".")
    if name and name == text:
        return name
    return f"{name}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:6]}"
