"""Prompts from files: plain text, JSON lines, CSV, TSV, JSON, Parquet.

A file of lines (text, JSON lines) is read lazily: opening it reads it once, line by line, to check it and to find equal
prompts, and keeps where each prompt's line begins, 8 bytes a prompt. The other formats cannot be entered in the middle:
of them the prompts are kept, and nothing else.
"""

from __future__ import annotations

import csv
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import Field

from rfbench.core.prompts import PromptSet, normalise
from rfbench.errors import InputError, did_you_mean
from rfbench.suite.settings import Settings

LINE_FORMATS = (".txt", ".jsonl", ".ndjson")
FORMATS = (*LINE_FORMATS, ".csv", ".tsv", ".json", ".parquet")
Duplicates = Literal["drop", "keep"]


class StoredPrompts(PromptSet):
    """The prompts of one file, in its order; empty ones are skipped.

    Of prompts that are equal after normalisation the first is kept, or all of them.
    """

    def __init__(self, path: Path, column: str, duplicates: Duplicates) -> None:
        self._path, self._column = path, column
        self._lines = array("Q")  # where the line of each prompt begins, in a file of lines
        self._prompts: list[str] = []  # in any other
        seen: set[str] = set()
        for place, prompt in self._read():
            key = normalise(prompt)
            if not key:
                continue
            if duplicates == "drop":
                if key in seen:
                    self.duplicates += 1
                    continue
                seen.add(key)
            if place is None:
                self._prompts.append(prompt)
            else:
                self._lines.append(place)
        if not len(self):
            raise InputError(f"the prompt file {path} holds no prompt")

    def __len__(self) -> int:
        return len(self._lines) or len(self._prompts)

    def __getitem__(self, index: int) -> str:
        if self._prompts:
            return self._prompts[index]
        with open(self._path, "rb") as file:
            return self._line(file, self._lines[index])

    def __iter__(self) -> Iterator[str]:
        if self._prompts:
            yield from self._prompts
            return
        with open(self._path, "rb") as file:
            yield from (self._line(file, begin) for begin in self._lines)

    def _line(self, file: BinaryIO, begin: int) -> str:
        file.seek(begin)
        return _parse_line(self._path, self._column, file.readline(), where="a line that was read before").strip()

    def _read(self) -> Iterator[tuple[int | None, str]]:
        """Every prompt, with where its line begins in a file of lines; an ``InputError`` says what cannot be read."""
        path, column = self._path, self._column
        format = path.suffix.lower()
        if format not in FORMATS:
            raise InputError(f"the prompt file {path} must end in one of {', '.join(FORMATS)}, to tell its format")
        try:
            if format in LINE_FORMATS:
                yield from _read_lines(path, column)
            elif format == ".json":
                yield from ((None, prompt.strip()) for prompt in _read_json(path, column))
            elif format == ".parquet":
                yield from ((None, prompt.strip()) for prompt in _read_parquet(path, column))
            else:
                delimiter = "\t" if format == ".tsv" else ","
                yield from ((None, prompt.strip()) for prompt in _read_csv(path, column, delimiter))
        except OSError as error:
            raise InputError(f"the prompt file {path} cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise InputError(f"the prompt file {path} is not UTF-8 (byte {error.start})") from None


class FilePromptsConfig(Settings):
    """Settings of a prompt file."""

    path: Path = Field(description=f"UTF-8 or Parquet; its format is that of its ending: {', '.join(FORMATS)}")
    column: str = Field("prompt", description="column or key of the prompt, where there are several")
    duplicates: Duplicates = Field("drop", description="of prompts equal but for case and spacing: the first, or all")


class FilePrompts(StoredPrompts):
    """Prompts of a text, JSON lines, CSV, TSV, JSON or Parquet file."""

    Config = FilePromptsConfig

    @classmethod
    def inputs(cls, config: FilePromptsConfig) -> dict[str, list[Path]]:
        return {"path": [config.path] if config.path.is_file() else []}

    def __init__(self, config: FilePromptsConfig) -> None:
        super().__init__(config.path, config.column, config.duplicates)


def _read_lines(path: Path, column: str) -> Iterator[tuple[int, str]]:
    begin = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            yield begin, _parse_line(path, column, line, where=f"line {number}")
            begin += len(line)


def _parse_line(path: Path, column: str, line: bytes, where: str) -> str:
    """The prompt of one line; empty where the line is."""
    try:
        text = line.decode("utf-8").removeprefix("\ufeff")  # the byte-order mark that some editors begin a file with
    except UnicodeDecodeError as error:
        raise InputError(f"the prompt file {path} is not UTF-8 ({where}, byte {error.start} of it)") from None
    if path.suffix.lower() == ".txt" or not text.strip():
        return text
    try:
        record = json.loads(text.rstrip())
    except json.JSONDecodeError as error:
        raise InputError(f"the prompt file {path}, {where}: {error.msg} (column {error.colno}); not JSON") from None
    return _field(record, column, f"the prompt file {path}, {where}")


def _read_json(path: Path, column: str) -> Iterator[str]:
    """A list of strings, or of records."""

    def keep_prompt(record: dict[str, Any]) -> Any:
        return record.get(column, record)  # what else a large file's records hold need not be kept

    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=keep_prompt)
    except json.JSONDecodeError as error:
        raise InputError(f"the prompt file {path} is not JSON: {error.msg} (line {error.lineno})") from None
    if not isinstance(records, list):
        raise InputError(f"the prompt file {path} must be a list of strings or of records, not {_shown(records)}")
    for number, record in enumerate(records, start=1):
        yield _field(record, column, f"the prompt file {path}, record {number}")


def _read_csv(path: Path, column: str, delimiter: str) -> Iterator[str]:
    """A table with a header."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            _check_column(column, rows.fieldnames or (), f"the prompt file {path}")
            yield from (row[column] or "" for row in rows)
        except csv.Error as error:
            raise InputError(f"the prompt file {path}, line {rows.reader.line_num}: {error}") from None


def _read_parquet(path: Path, column: str) -> Iterator[str]:
    """The one column; polars, which reads the tables of results too, is imported only for this."""
    import polars as pl

    try:
        schema = pl.read_parquet_schema(path)
        _check_column(column, schema, f"the prompt file {path}")
        if schema[column] != pl.String:
            raise InputError(f"the prompt file {path}: column {column!r} holds {schema[column]}, not text")
        yield from (prompt or "" for prompt in pl.read_parquet(path, columns=[column])[column])
    except pl.exceptions.PolarsError as error:
        raise InputError(f"the prompt file {path} is not a Parquet file that can be read: {error}") from None


def _field(record: Any, column: str, where: str) -> str:
    """The prompt of a string, or of a record; null counts as empty."""
    value = record
    if isinstance(record, dict):
        _check_column(column, record, where)
        value = record[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: the prompt is {_shown(value)}, not text")
    return value


def _check_column(column: str, columns: Any, where: str) -> None:
    if column not in columns:
        raise InputError(
            f"{where}: there is no column {column!r}{did_you_mean(column, columns)}; there are {', '.join(columns)}; "
            "name the prompt's with the prompt set's option column"
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
