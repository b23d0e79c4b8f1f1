"""Where the shipped weights lie, and the proof that they are whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rfbench.errors import DamagedFileError

WEIGHTS = Path(__file__).parent / "weights"
PIPELINE = WEIGHTS / "pipeline"  # a diffusers StableDiffusionPipeline folder
FLOW = WEIGHTS / "flow"  # another, trained as a rectified flow, without a VAE: that is PIPELINE's
REWARD = WEIGHTS / "reward"  # a transformers CLIPModel folder with its tokenizer and preprocessor_config.json
CHECKSUMS = "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """Record the SHA-256 of every file below `folder` in its SHA256SUMS, in the format of `sha256sum`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def verify(folder: Path) -> None:
    """Compare the files of a folder with its SHA256SUMS; DamagedFileError names the first that differs."""
    listing = folder / CHECKSUMS
    if not listing.is_file():
        raise DamagedFileError(f"{listing} is missing; restore the folder with `git checkout -- {folder}`")
    for line in listing.read_text(encoding="utf-8").splitlines():
        expected, name = line.split("  ", maxsplit=1)
        path = folder / name
        if not path.is_file():
            raise DamagedFileError(f"{path} is missing; restore it with `git checkout -- {path}`")
        found = _sha256(path)
        if found != expected:
            raise DamagedFileError(
                f"{path} is damaged: SHA-256 is {found} but {CHECKSUMS} says {expected}; "
                f"restore it with `git checkout -- {path}`"
            )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
