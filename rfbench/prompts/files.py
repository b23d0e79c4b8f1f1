"""Prompts from files: plain text, JSON lines, CSV, TSV, JSON, Parquet.

A file of lines (text, JSON lines) is read lazily: opening it reads it once, line by line, to check it and to find equal
prompts, and keeps where each prompt's line begins, 8 bytes a prompt. The other formats cannot be entered in the middle:
of them the prompts are kept, and nothing else.
"""

from __future__ import annotations

import codecs
import csv
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import Field

from rfbench.core.prompts import PromptSet, is_empty, normalise, require_text
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
        for place, where, prompt in self._read():
            if is_empty(prompt):
                continue
            require_text(prompt, f"the prompt file {path}, {where}")
            key = normalise(prompt)
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

    def _read(self) -> Iterator[tuple[int | None, str, str]]:
        """Every prompt: where its line begins in a file of lines, its place in words, and itself.

        An ``InputError`` says what cannot be read.
        """
        path, column = self._path, self._column
        format = path.suffix.lower()
        if format not in FORMATS:
            raise InputError(f"the prompt file {path} must end in one of {', '.join(FORMATS)}, to tell its format")
        if path.exists() and not path.is_file():
            raise InputError(f"the prompt file {path} is no file that can be read again, but a folder, device or pipe")
        try:
            _check_encoding(path, format)
            if format in LINE_FORMATS:
                yield from _read_lines(path, column)
            else:
                readers = {".json": _read_json, ".parquet": _read_parquet, ".tsv": _read_tsv, ".csv": _read_csv}
                yield from ((None, where, prompt.strip()) for where, prompt in readers[format](path, column))
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
        super().__init__(config.path.expanduser(), config.column, config.duplicates)


def _check_encoding(path: Path, format: str) -> None:
    """UTF-16 is refused by its mark; without one, by its NUL characters where they are met."""
    with open(path, "rb") as file:
        head = file.read(2)
    if format != ".parquet" and head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise InputError(
            f"the prompt file {path} is not UTF-8: its first two bytes are the mark of UTF-16; save it as UTF-8"
        )


def _read_lines(path: Path, column: str) -> Iterator[tuple[int, str, str]]:
    begin = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"line {number}"
            yield begin, where, _parse_line(path, column, line, where)
            begin += len(line)


def _parse_line(path: Path, column: str, line: bytes, where: str) -> str:
    """The prompt of one line; empty where the line is."""
    try:
        text = line.decode("utf-8").removeprefix("\ufeff")  # the byte-order mark that some editors begin a file with
    except UnicodeDecodeError as error:
        raise InputError(f"the prompt file {path} is not UTF-8 ({where}, byte {error.start} of it)") from None
    if path.suffix.lower() == ".txt":
        _check_one_line(text, f"the prompt file {path}, {where}")
        return text
    if is_empty(text):
        return ""
    return _parse_json(text, column, f"the prompt file {path}, {where}")


def _parse_json(text: str, column: str, where: str) -> str:
    try:
        record = json.loads(text.strip())
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: {error.msg} (column {error.colno}); not JSON") from None
    return _field(record, column, where)


def _check_one_line(text: str, where: str) -> None:
    """A line of text holds one prompt: no other sign that ends a line or a page."""
    inside = text.removesuffix("\n").removesuffix("\r")
    if len(inside.splitlines()) > 1:
        sign = next(character for character in inside if len(f"a{character}b".splitlines()) > 1)
        raise InputError(
            f"{where}: U+{ord(sign):04X} ends a line inside of it ({_shown(inside)}); end lines with a line feed, as "
            r"`tr '\r' '\n'` does for old Mac files"
        )


class _FoundPrompt(str):
    """The prompt of a record whose other fields were dropped."""


def _read_json(path: Path, column: str) -> Iterator[tuple[str, str]]:
    """A list of strings or of records, a table of records by their ids, or one list among other fields."""

    def keep_prompt(record: dict[str, Any]) -> Any:
        prompt = record.get(column, record)  # what else a large file's records hold need not be kept
        return _FoundPrompt(prompt) if isinstance(prompt, str) else prompt

    text = path.read_text(encoding="utf-8-sig")
    try:
        data = json.loads(text, object_hook=keep_prompt)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise InputError(f"the prompt file {path} is not JSON: {error.msg} (line {error.lineno})") from None
        yield from _read_json_lines(path, column, text)  # JSON lines under the other name
        return
    for number, record in enumerate(_records(data, path, column), start=1):
        where = f"record {number}"
        yield where, _field(record, column, f"the prompt file {path}, {where}")


def _read_json_lines(path: Path, column: str, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"line {number}"
        yield where, "" if is_empty(line) else _parse_json(line, column, f"the prompt file {path}, {where}")


def _records(data: Any, path: Path, column: str) -> list[Any]:
    """The records of a file: data sets publish them as a list, by their ids (MJHQ), or beside other lists (COCO)."""
    if isinstance(data, list):
        return data
    if isinstance(data, dict):
        if data and all(isinstance(value, _FoundPrompt) for value in data.values()):
            return list(data.values())
        lists = [value for value in data.values() if isinstance(value, list) and value]
        holding = [value for value in lists if all(isinstance(record, _FoundPrompt) for record in value)]
        if len(holding) == 1:
            return holding[0]
        keys = sorted({key for value in lists if isinstance(value[0], dict) for key in value[0]})
        if keys:
            _check_column(column, keys, f"the prompt file {path}")
    raise InputError(
        f"the prompt file {path} must be a list of strings or of records, not {_shown(data)}; a table of records, or "
        f"one list of them among others, is read where each has the key {column!r}: name the prompt's key with the "
        "prompt set's option column, or save the prompts as a list"
    )


def _read_tsv(path: Path, column: str) -> Iterator[tuple[str, str]]:
    """A table with a header whose cells are as they stand: tab-separated values know no quoting (IANA)."""
    return _read_table(path, column, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_csv(path: Path, column: str) -> Iterator[tuple[str, str]]:
    """A table with a header; a cell with a comma is quoted."""
    return _read_table(path, column, delimiter=",", quoting=csv.QUOTE_MINIMAL)


def _read_table(path: Path, column: str, *, delimiter: str, quoting: Literal[0, 3]) -> Iterator[tuple[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            header = next(rows, [])
            _check_header(header, column, path, delimiter)
            place = header.index(column)
            for row in rows:
                where = f"line {rows.line_num}"
                if len(row) not in (0, len(header)):
                    raise InputError(
                        f"the prompt file {path}, {where}: {len(row)} cells, but the header has {len(header)}"
                        + ("; a cell with a comma needs quotes around it" if delimiter == "," else "")
                    )
                yield where, row[place] if row else ""
        except csv.Error as error:
            raise InputError(f"the prompt file {path}, line {rows.line_num}: {error}") from None


def _check_header(header: list[str], column: str, path: Path, delimiter: str) -> None:
    other = next((sign for sign in ";\t," if sign != delimiter and any(sign in name for name in header)), None)
    if column not in header and len(header) == 1 and other:
        named = "a tab" if other == "\t" else repr(other)
        raise InputError(
            f"the prompt file {path}: its header {_shown(header[0])} has {named} between its names; "
            + (
                "name the file .tsv"
                if other == "\t"
                else f"separate them with {'commas' if delimiter == ',' else 'tabs'}"
            )
        )
    _check_column(column, header, f"the prompt file {path}")
    if header.count(column) > 1:
        raise InputError(f"the prompt file {path}: {header.count(column)} columns are named {column!r}; rename one")


def _read_parquet(path: Path, column: str) -> Iterator[tuple[str, str]]:
    """The one column; polars, which reads the tables of results too, is imported only for this."""
    import polars as pl

    try:
        schema = pl.read_parquet_schema(path)
        _check_column(column, schema, f"the prompt file {path}")
        if schema[column] != pl.String:
            raise InputError(f"the prompt file {path}: column {column!r} holds {schema[column]}, not text")
        prompts = pl.read_parquet(path, columns=[column])[column]
        yield from ((f"row {number}", prompt or "") for number, prompt in enumerate(prompts, start=1))
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
