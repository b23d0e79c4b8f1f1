"""Text of records and users: no formula for a spreadsheet, no markup for a page, no two names for one file."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl
import pytest

from rfbench.names import as_file_name, check_name
from rfbench.report import analyse, write
from rfbench.report.writing import _write_csv
from tests.report.run_writer import SUITE, write_run

FORMULAS = ["=HYPERLINK(1)", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1"]
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_a_table_is_a_formula(text: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"suite": [text, "plain", None], text: [-1.5, 2.0, None]})
    _write_csv(frame, tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        heading, *rows = csv.reader(file)
    assert [row[0] for row in rows] == [f"'{text}", "plain", ""]
    assert [row[1] for row in rows] == ["-1.5", "2.0", ""]  # numbers stay numbers
    assert heading[0] == "suite"


@pytest.mark.parametrize("name", [MARKUP.replace("/", ""), "=1+1", "</td>".replace("/", "")])
def test_a_suites_name_is_text_in_every_file_of_a_comparison(name: str, tmp_path: Path) -> None:
    for label in ("prdp", "ddpo"):
        for seed in (0, 1):
            write_run(tmp_path / "runs", label, seed, suite=SUITE | {"name": name})
    found = analyse([tmp_path / "runs"])
    written = write(found, tmp_path / "out", html=tmp_path / "page.html")
    for path in written.files:
        if path.suffix in (".md", ".html"):
            assert MARKUP not in path.read_text()
            assert not path.read_text().startswith(name if name.startswith("<") else "\0")
        if path.suffix == ".csv":
            with open(path, newline="", encoding="utf-8") as file:
                assert not [cell for row in csv.reader(file) for cell in row if cell.startswith(("=", "@"))]


def test_every_text_has_a_file_name_of_its_own() -> None:
    texts = [
        "small-shapes",
        "=cmd",
        "+cmd",
        "-cmd",
        "a/b",
        "a b",
        "a\\b",
        "..",
        ".",
        "",
        "../../x",
        "a" * 300,
        "ä",
        MARKUP,
    ]
    names = [as_file_name(text) for text in texts]
    assert len(set(names)) == len(texts)
    assert names[0] == "small-shapes"
    for name in names:
        assert "/" not in name
        assert name not in ("", ".", "..")
        assert check_name(name) == name
