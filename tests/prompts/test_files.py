"""Prompt files: every format gives the same prompts, and what is wrong is said with its place."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rfbench.cli import exit_code
from rfbench.core.prompts import PromptSet
from rfbench.errors import InputError
from rfbench.prompts.files import FilePrompts, FilePromptsConfig

PROMPTS = ["a cat", 'A dog, "large"', "", "ein Bär, größer", "a  CAT", "線画の猫", "a cat"]
DISTINCT = ["a cat", 'A dog, "large"', "ein Bär, größer", "線画の猫"]


def write_csv(path: Path, records: list[dict[str, Any]], separator: str = ",") -> None:
    pl.DataFrame(records).write_csv(path, separator=separator)


def write_tsv(path: Path, records: list[dict[str, Any]]) -> None:
    """As tab-separated values are published: no quoting."""
    rows = [list(records[0]), *(list(map(str, record.values())) for record in records)]
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], object]] = {
    ".txt": lambda path, records: path.write_text("\n".join(r["prompt"] for r in records), encoding="utf-8"),
    ".jsonl": lambda path, records: path.write_text("\n".join(map(json.dumps, records)) + "\n\n"),
    ".json": lambda path, records: path.write_text(json.dumps(records, indent=1)),
    ".csv": write_csv,
    ".tsv": lambda path, records: write_tsv(path, records),
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


def test_tab_separated_values_know_no_quotes(tmp_path: Path) -> None:
    """The structure of PartiPrompts.tsv: 1,632 rows, some of which begin, end or go on with a quotation mark."""
    rows = [f"prompt number {i}" for i in range(1628)]
    rows[5:5] = [
        '"STOP" is what the sign says',
        'a sign that says "Hello',
        'the word ends here"',
        '"a whole quoted prompt"',
    ]
    path = tmp_path / "PartiPrompts.tsv"
    cells = [f"{prompt}\tArts\tWriting & Symbols\t" for prompt in rows]
    path.write_text("Prompt\tCategory\tChallenge\tNote\n" + "\n".join(cells) + "\n", encoding="utf-8")
    assert list(prompts(path, column="Prompt")) == rows
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert list(prompts(path, column="Prompt")) == rows


def test_published_json_of_other_shapes(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    coco = {
        "info": {"year": 2014},
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [{"image_id": 1, "id": 7, "caption": "a cat"}, {"image_id": 1, "id": 8, "caption": "a dog"}],
    }
    path.write_text(json.dumps(coco))
    assert list(prompts(path, column="caption")) == ["a cat", "a dog"]
    with pytest.raises(
        InputError, match=r"no column .prompt.; there are caption, file_name, id, image_id; name the prompt"
    ):
        prompts(path)
    mjhq = {"01": {"category": "animals", "prompt": "a cat"}, "02": {"category": "food", "prompt": "a pie"}}
    path.write_text(json.dumps(mjhq))
    assert list(prompts(path)) == ["a cat", "a pie"]
    path.write_text("\n".join(json.dumps(record) for record in mjhq.values()))  # JSON lines
    assert list(prompts(path)) == ["a cat", "a pie"]
    path.write_text('{"prompt": "a cat"}\n{"prompt": \n')
    with pytest.raises(InputError, match=r"p\.json, line 2: Expecting value"):
        prompts(path)
    path.write_text('{"a": "one", "b": "two"}')  # which of the two is a prompt?
    with pytest.raises(InputError, match="must be a list of strings or of records, not"):
        prompts(path)


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize(
    "empty", ["", "  ", "\u200b", "\ufeff", "\u2060 \u200d", "\xa0", "\xad", "\u2800", "\u3164 \u115f"]
)
def test_what_nobody_sees_is_empty(tmp_path: Path, ending: str, empty: str) -> None:
    path = tmp_path / f"p{ending}"
    WRITERS[ending](
        path, [{"n": i, "prompt": prompt} for i, prompt in enumerate(["a cat", empty, "👩\u200d🚀 in space"])]
    )
    assert list(prompts(path)) == ["a cat", "👩\u200d🚀 in space"]


@pytest.mark.parametrize("sign", ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_a_line_of_text_that_another_sign_ends(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(f"a bird\na cat{sign}a dog{sign}a fox\n".encode())
    with pytest.raises(InputError, match=rf"p.txt, line 2: U\+{ord(sign):04X} ends a line inside of it"):
        prompts(path)


@pytest.mark.parametrize("code", [0, 1, 8, 0x1B, 0x7F, 0x9C])
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_control_characters_are_no_text(tmp_path: Path, ending: str, code: int) -> None:
    path = tmp_path / f"p{ending}"
    WRITERS[ending](path, [{"prompt": "a cat"}, {"prompt": f"a {chr(code)}dog"}])
    with pytest.raises(
        InputError, match=rf"p{ending}, (line|record|row) [23]: the control character U\+{code:04X} is in"
    ):
        prompts(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("ending", [".txt", ".csv", ".tsv"])
def test_other_encodings_are_refused(tmp_path: Path, ending: str, encoding: str) -> None:
    path = tmp_path / f"p{ending}"
    path.write_text("prompt\na cat\na dog\n", encoding=encoding)
    with pytest.raises(InputError, match=r"UTF-16|UTF-8|no column 'prompt'"):
        prompts(path)


@pytest.mark.parametrize("half", ["\\ud83d", "\\udc31", "\\udc31\\ud83d"])
def test_half_of_a_character(tmp_path: Path, half: str) -> None:
    (tmp_path / "p.jsonl").write_text(f'{{"prompt": "a dog"}}\n{{"prompt": "a cat {half}"}}\n')
    (tmp_path / "p.json").write_text(f'["a dog", "a cat {half}"]')
    for name, where in (("p.jsonl", "line 2"), ("p.json", "record 2")):
        with pytest.raises(InputError, match=rf"{name}, {where}: U\+D\w+ is half of a character"):
            prompts(tmp_path / name)
    (tmp_path / "p.jsonl").write_text('{"prompt": "a cat \\ud83d\\udc31"}')
    assert list(prompts(tmp_path / "p.jsonl")) == ["a cat 🐱"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "p.csv",
            "id,prompt\n1,a red car, at night\n",
            "p.csv, line 2: 3 cells, but the header has 2; a cell with a comma",
        ),
        ("p.csv", "prompt,id\na dog,1\na cat\n", "p.csv, line 3: 1 cells, but the header has 2"),
        ("p.csv", "prompt\na cat sitting, with a hat\n", "line 2: 2 cells, but the header has 1"),
        ("p.csv", "prompt,prompt\na,b\n", "2 columns are named 'prompt'; rename one"),
        (
            "p.csv",
            "prompt;kind\na cat;A\n",
            "its header 'prompt;kind' has ';' between its names; separate them with commas",
        ),
        ("p.csv", "prompt\tkind\na cat\tA\n", "has a tab between its names; name the file .tsv"),
        ("p.tsv", "prompt,kind\na cat,A\n", "has ',' between its names; separate them with tabs"),
        ("p.tsv", "prompt\tkind\na cat\n", "p.tsv, line 2: 1 cells, but the header has 2"),
        ("p.tsv", "prompt\tprompt\na\tb\n", "2 columns are named 'prompt'"),
    ],
)
def test_tables_whose_rows_do_not_fit_their_header(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as raised:
        prompts(tmp_path / name)
    assert message in str(raised.value)


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "p.txt").write_text("a cat\n")
    assert list(prompts(Path("~/p.txt"))) == ["a cat"]


def test_a_prompt_of_the_command_line_must_be_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["sample", "run", "--prompt", "a cat \udcff"]) == 2
    assert "--prompt: U+DCFF is half of a character" in capsys.readouterr().err
