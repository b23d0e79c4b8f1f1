"""Downloads from the hub: exactly what is missing, sized up first, and every failure with what to do about it.

The hub's client takes up a connection that breaks, keeps the files that are complete when it is ended, and honours
HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,  # of the HTTP client, whose name differs between the hub's versions
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects

from rfbench.errors import InputError, RfbenchError
from rfbench.hub.sources import Need, Source, missing


@dataclass(frozen=True)
class Download:
    """What one source still takes.

    Attributes:
        settings: the suite's settings whose value the source is.
        patterns: of the files that are read, in the form that the repository has.
        files: how many files are not in the cache yet.
        bytes: their size.
    """

    source: Source
    settings: tuple[str, ...]
    patterns: tuple[str, ...]
    files: int
    bytes: int


def size_up(needs: Sequence[Need], suite: str) -> list[Download]:
    """Asks the hub for what is not on this disk; ``suite`` is what the command line calls the suite.

    Raises an ``InputError`` for what no download can bring, and an ``RfbenchError`` where the disk is too small.
    """
    absent = [need for need in needs if need.source.find() is None]
    local = [need for need in absent if need.source.is_local]
    if local:
        raise InputError(missing(local, suite))
    downloads = [
        _size_up(source, tuple(need.setting for need in absent if need.source == source))
        for source in dict.fromkeys(need.source for need in absent)
    ]
    total, free = sum(download.bytes for download in downloads), free_bytes()
    if total > free:
        raise RfbenchError(
            f"{total / 1e9:.1f} GB are to be downloaded, but {constants.HF_HUB_CACHE} has {free / 1e9:.1f} GB free; "
            "make room there, or set HF_HOME to a folder on a larger disk"
        )
    return downloads


def download(item: Download) -> Path:
    """Brings one source onto this disk, and returns its folder."""
    source = item.source
    try:
        folder = snapshot_download(
            source.path, repo_type=source.kind, revision=source.revision, allow_patterns=list(item.patterns)
        )
    except (HTTPError, OSError, EntryNotFoundError) as error:
        raise explain(error, source) from error
    return Path(folder)


def free_bytes() -> int:
    """Room on the disk of the hub's cache."""
    folder = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    return shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.exists())).free


def explain(error: Exception, source: Source) -> RfbenchError:
    """The hub client's error in our words, with what to do."""
    what, endpoint = f"{source.path} at revision {source.revision}", constants.ENDPOINT
    page = f"{endpoint}/{'datasets/' if source.kind == 'dataset' else ''}{source.path}"
    cause = error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and isinstance(cause, (HTTPError, OSError)):
        return explain(cause, source)  # what the client says when it finds neither the hub nor the files
    if isinstance(error, GatedRepoError):
        return InputError(
            f"{source.path} is gated: accept its terms at {page}, then log in with `hf auth login` (or set HF_TOKEN)"
        )
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"{source.path} has no revision {source.revision!r} at {endpoint}; see {page}/commits/main")
    if isinstance(error, RepositoryNotFoundError):
        return InputError(
            f"there is no {source.kind} {source.path!r} at {endpoint}; check the name, and if the repository is "
            "private log in with `hf auth login` (or set HF_TOKEN)"
        )
    if isinstance(error, OfflineModeIsEnabled):
        return InputError(
            f"{what} is not on this disk, and HF_HUB_OFFLINE forbids to download it; unset HF_HUB_OFFLINE, or fetch on "
            "a machine that is online and copy its HF_HOME"
        )
    if isinstance(error, EntryNotFoundError):
        return InputError(f"{what} lacks a file that is needed; see {page}/tree/{source.revision}")
    if isinstance(error, HfHubHTTPError):
        status = f"{error.response.status_code} {error.response.reason_phrase}"
        return RfbenchError(f"{endpoint} answered {status} for {what}; fetch again later: complete files are kept")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RfbenchError(
            f"the disk of {constants.HF_HUB_CACHE} is full; make room there, or set HF_HOME to a folder on a larger "
            "disk, and fetch again: complete files are kept"
        )
    if isinstance(error, HTTPError):
        return RfbenchError(
            f"the connection to the hub at {endpoint} failed ({error}); check the network and HTTPS_PROXY, set "
            "HF_ENDPOINT to a mirror, or copy the files here and name them with --set. Fetch again: complete files "
            "are kept"
        )
    return RfbenchError(f"{what} could not be downloaded: {error}")


def _size_up(source: Source, settings: tuple[str, ...]) -> Download:
    api = HfApi()
    look_up = api.dataset_info if source.kind == "dataset" else api.model_info
    try:
        info = look_up(source.path, revision=source.revision, files_metadata=True)
    except (HTTPError, OSError) as error:
        raise explain(error, source) from error
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}

    def is_there(pattern: str) -> bool:
        return any(filter_repo_objects(sizes, allow_patterns=[pattern]))

    lacking = source.lacking(is_there)
    if lacking:
        raise InputError(
            f"{source.path} at revision {source.revision} has no file {lacking[0]}; check {settings[0]}, or name a "
            "local copy there"
        )
    patterns = source.patterns(is_there)
    wanted = filter_repo_objects(sizes, allow_patterns=patterns)
    left = [name for name in wanted if not _is_cached(source, name, info.sha)]
    return Download(source, settings, tuple(patterns), len(left), sum(sizes[name] for name in left))


def _is_cached(source: Source, name: str, commit: str | None) -> bool:
    return isinstance(try_to_load_from_cache(source.path, name, revision=commit, repo_type=source.kind), str)
