"""Records that are gzipped are read as they were, and nothing is written beside them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from rfbench.errors import InputError
from rfbench.report import load
from rfbench.running.folder import RECORDS, RunFolder
from tests.report.run_writer import write_run


def pack(folder: Path) -> list[Path]:
    """Gzips a run's records in place."""
    made = []
    for name in RECORDS:
        plain = folder / f"{name}.jsonl"
        made.append(plain.with_name(f"{plain.name}.gz"))
        made[-1].write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return made


def test_gzipped_records_are_read_as_the_plain_ones(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    plain, lines = load([tmp_path]), {name: RunFolder(folder, writer=False).read(name) for name in RECORDS}
    pack(folder)
    packed = load([tmp_path])
    assert packed.problems == ()
    assert packed.evals.equals(plain.evals)
    assert packed.metrics.equals(plain.metrics)
    assert {name: RunFolder(folder, writer=False).read(name) for name in RECORDS} == lines
    assert len(lines["metrics"]) == 20


@pytest.mark.parametrize("spoil", [lambda content: content[:-20], lambda content: b"no gzip" + content])
def test_a_damaged_one_is_named(tmp_path: Path, spoil: object) -> None:
    folder = write_run(tmp_path)
    for file in pack(folder):
        file.write_bytes(spoil(file.read_bytes()))  # type: ignore[operator]
    found = [str(problem) for problem in load([tmp_path]).problems]
    assert f"{folder / 'evals.jsonl'}: cannot be read (a damaged gzip file)" in found
    with pytest.raises(InputError, match=r"evals\.jsonl\.gz cannot be read \(a damaged gzip file\); restore the file"):
        RunFolder(folder, writer=False).read("evals")


def test_nothing_is_written_beside_them(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    pack(folder)
    with pytest.raises(InputError, match=r"metrics\.jsonl\.gz is gzipped, to be read alone; gunzip it before"):
        RunFolder(folder)
