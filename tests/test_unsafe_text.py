"""Text of records and users: no formula for a spreadsheet, no markup for a page, no two names for one file."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
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


class Page(HTMLParser):
    """The tags of a page, the attributes of all, and what its title says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.title = ""
        self._in_title = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._in_title = tag == "title"

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False

    def handle_data(self, data: str) -> None:
        self.title += data if self._in_title else ""


@pytest.mark.parametrize("name", [MARKUP, "<blink>", "a|b", "=1+1", "@SUM(A1)", "-1+1"])
def test_a_suites_name_is_text_in_every_file_of_a_comparison(name: str, tmp_path: Path) -> None:
    for label in ("prdp", "ddpo"):
        for seed in (0, 1):
            write_run(tmp_path / "runs", label, seed, suite=SUITE | {"name": name})
    found = analyse([tmp_path / "runs"])
    written = write(found, tmp_path / "out", html=tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.title == f"rfbench: {name}"
    assert "blink" not in page.tags
    assert "onerror" not in page.attributes
    (markdown,) = (path.read_text(encoding="utf-8") for path in written.files if path.suffix == ".md")
    shown = name.replace("<", "&lt;").replace("|", r"\|")
    assert f"## {shown}\n" in markdown
    assert not (name.startswith("<") and name in markdown)
    tables = [path for path in written.files if path.suffix == ".csv"]
    assert len(tables) == 6
    for path in tables:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert {row["suite"] for row in rows} == {f"'{name}" if name[0] in "=@-" else name}


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
