"""The errors that rfbench raises on purpose; their messages are part of the interface."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

FILE_ERRORS = {
    errno.ENOENT: "there is no such file or folder",
    errno.EACCES: "you may not read or write there; choose another path, or change its permissions",
    errno.EPERM: "you may not do that there; choose another path, or change its permissions",
    errno.EROFS: "that disk can only be read; choose another path",
    errno.EEXIST: "something is there already; choose another path",
    errno.ENOTDIR: "a part of that path is a file, not a folder; choose another path",
    errno.EISDIR: "that is a folder, and a file is needed",
    errno.ENOTEMPTY: "that folder is not empty",
    errno.ENAMETOOLONG: "that name is longer than the disk allows; choose a shorter path",
    errno.ELOOP: "its links lead in a circle",
    errno.EINVAL: "the disk does not take such a path or operation; choose another path",
    errno.ENOSPC: "the disk is full; make room, and give the same command again",
    errno.EDQUOT: "your share of the disk is used up; make room, and give the same command again",
    errno.EFBIG: "the file would be larger than is allowed (see `ulimit -f`)",
    errno.EIO: "the disk reports an error",
    errno.ESTALE: "the network disk has lost it; try again",
    errno.EMFILE: "too many files are open (see `ulimit -n`)",
}


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
    near = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=2, cutoff=0.5)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def file_error(error: OSError) -> str | None:
    """What to tell of a file or folder that could not be used, and what to do; None for errors of another kind."""
    if error.filename is None and error.errno not in FILE_ERRORS:
        return None
    path = f"{error.filename}: " if error.filename is not None else ""
    return f"{path}{FILE_ERRORS.get(error.errno or 0, error.strerror or str(error))}"
