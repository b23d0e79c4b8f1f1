"""Prompt files: every format gives the same prompts, and what is wrong is said with its place."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rfbench.core.prompts import PromptSet
from rfbench.errors import InputError
from rfbench.prompts.files import FilePrompts, FilePromptsConfig

PROMPTS = ["a cat", 'A dog, "large"', "", "ein Bär, größer", "a  CAT", "線画の猫", "a cat"]
DISTINCT = ["a cat", 'A dog, "large"', "ein Bär, größer", "線画の猫"]


def write_csv(path: Path, records: list[dict[str, Any]], separator: str = ",") -> None:
    pl.DataFrame(records).write_csv(path, separator=separator)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], object]] = {
    ".txt": lambda path, records: path.write_text("\n".join(r["prompt"] for r in records), encoding="utf-8"),
    ".jsonl": lambda path, records: path.write_text("\n".join(map(json.dumps, records)) + "\n\n"),
    ".json": lambda path, records: path.write_text(json.dumps(records, indent=1)),
    ".csv": write_csv,
    ".tsv": lambda path, records: write_csv(path, records, "\t"),
    ".parquet": lambda path, records: pl.DataFrame(records).write_parquet(path),
}


def prompts(path: Path, **options: Any) -> PromptSet:
    return FilePrompts(FilePromptsConfig(path=path, **options))


@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_gives_the_same_prompts(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"prompts{ending}"
    WRITERS[ending](path, [{"id": i, "prompt": prompt} for i, prompt in enumerate(PROMPTS)])
    distinct, everything = prompts(path), prompts(path, duplicates="keep")
    assert list(distinct) == [distinct[i] for i in range(len(distinct))] == DISTINCT
    assert distinct.duplicates == 2
    assert list(everything) == [prompt for prompt in PROMPTS if prompt]
    assert everything.duplicates == 0


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
def test_json_may_hold_strings_alone(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"prompts{ending}"
    path.write_text(json.dumps(PROMPTS) if ending == ".json" else "\n".join(map(json.dumps, PROMPTS)))
    assert list(prompts(path)) == DISTINCT


def test_windows_files(tmp_path: Path) -> None:
    text, table = tmp_path / "prompts.txt", tmp_path / "prompts.csv"
    text.write_bytes(b"\xef\xbb\xbfa cat\r\na dog\r\n")
    table.write_bytes(b'\xef\xbb\xbfprompt,n\r\n"a cat",1\r\n"a dog,\r\nbarking",2\r\n')
    assert list(prompts(text)) == ["a cat", "a dog"]
    assert list(prompts(table)) == ["a cat", "a dog,\r\nbarking"]


LONG = " ".join(["word"] * 10_000)


@pytest.mark.parametrize("ending", WRITERS)
def test_very_long_prompts_are_read_whole(tmp_path: Path, ending: str) -> None:
    WRITERS[ending](tmp_path / f"p{ending}", [{"prompt": LONG}, {"prompt": "a cat"}])
    assert list(prompts(tmp_path / f"p{ending}")) == [LONG, "a cat"]


@pytest.mark.parametrize("ending", [".txt", ".jsonl"])
def test_of_files_of_lines_only_the_places_are_kept(tmp_path: Path, ending: str) -> None:
    path, count = tmp_path / f"prompts{ending}", 20_000
    WRITERS[ending](path, [{"prompt": f"prompt number {i} " + "x" * 100} for i in range(count)])
    tracemalloc.start()
    many = prompts(path)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 16 * count  # the file has 120 bytes a line
    assert many[count - 1].startswith("prompt number 19999 ")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"", "p.txt holds no prompt"),
        ("p.txt", b" \n\n", "p.txt holds no prompt"),
        ("p.csv", b"prompt\n", "p.csv holds no prompt"),
        ("p.json", b"[]", "p.json holds no prompt"),
        ("p.txt", b"a cat\na \xff dog", r"p.txt is not UTF-8 \(line 2, byte 2 of it\)"),
        ("p.csv", b"prompt\na \xff dog", r"p.csv is not UTF-8 \(byte "),
        ("p.json", b'["a \xff dog"]', r"p.json is not UTF-8 \(byte "),
        ("p.jsonl", b'{"prompt": "a cat"}\n{"prompt": \n', r"p.jsonl, line 2: Expecting value \(column 11\); not JSON"),
        ("p.jsonl", b'{"promt": "a cat", "n": 1}', r"line 1: there is no column 'prompt' \(did you mean 'promt'\?\); "
         "there are promt, n; name the prompt's with the prompt set's option column"),
        ("p.jsonl", b'{"prompt": 3}', "line 1: the prompt is 3, not text"),
        ("p.json", b'["a cat",\n"a dog"', r"p.json is not JSON: .* \(line 2\)"),
        ("p.json", b'{"prompts": ["a cat"]}', "must be a list of strings or of records, not {'prompts': "),
        ("p.json", b'[{"caption": "a cat"}]', "record 1: there is no column 'prompt'; there are caption"),
        ("p.csv", b"caption,n\na cat,1\n", "p.csv: there is no column 'prompt'; there are caption, n"),
        ("p.csv", b'prompt\n"a cat', "p.csv, line 2: unexpected end of data"),
        ("p.parquet", b"a cat", "p.parquet is not a Parquet file that can be read"),
        ("p.dat", b"a cat", r"p.dat must end in one of .txt, .jsonl,"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        prompts(tmp_path / name)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv cannot be read: No such file"):
        prompts(tmp_path / "none.csv")
    with pytest.raises(InputError, match="must end in one of"):
        prompts(tmp_path)


def test_parquet_columns(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pl.DataFrame({"caption": ["a cat", None, "a dog"], "n": [1, 2, 3]}).write_parquet(path)
    assert list(prompts(path, column="caption")) == ["a cat", "a dog"]
    with pytest.raises(InputError, match=r"no column 'caption_1' \(did you mean 'caption'\?\); there are caption, n"):
        prompts(path, column="caption_1")
    with pytest.raises(InputError, match="column 'n' holds Int64, not text"):
        prompts(path, column="n")
