"""What the pages tell a reader to type works, as it stands there."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from rfbench.cli import exit_code
from tests.commands import rfbench, said
from tests.documented import PAGES, ROOT, in_blocks, in_sentences

PLACEHOLDERS = {"SUITE": "tiny-shapes", "A": "prdp", "N": "2", "RUN": "results/tiny-shapes/prdp/seed-0"}
# No longer than it must be to have trained once; a study tells what it would run.
SHORTER = {"run": ["--set", "epochs=1"], "sweep": ["--dry-run"], "tune": ["--dry-run"]}
# Other tests run these: on files of the published format, which are not at hand here, or on an installed scaffold.
ELSEWHERE = re.compile(r"large-hpsv2|kohya|^fetch|^reward convert|^export|my-method")
# CI makes these; the package's own tests install a scaffold.
MADE = {"make", "pip", "git"}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_has_the_options_that_it_is_shown_with(
    page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, *arguments in in_blocks(page, tmp_path):
        if command == "rfbench":
            assert rfbench(*arguments, "--help") == 0, (arguments, said(capsys))
        elif "rfbench" in arguments:  # torchrun ... -m rfbench ...
            after = arguments[arguments.index("rfbench") + 1 :]
            assert rfbench(*after, "--help") == 0, (arguments, said(capsys))
        elif arguments[0] == "-m":
            assert importlib.util.find_spec(arguments[1]), arguments
        elif command == "python":
            assert (ROOT / arguments[0]).is_file(), arguments
        else:
            assert command in MADE


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_in_a_sentence_exists(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for sentence in in_sentences(page):
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(sentence)[1:] if word != "…"]
        assert rfbench(*words, "--help") == 0, (sentence, said(capsys))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_on_the_embedded_worlds_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the page's order, in a folder with the reference results; plugin files are the page's own blocks."""
    shown = [arguments for command, *arguments in in_blocks(page, tmp_path) if command == "rfbench"]
    sentences = [[PLACEHOLDERS.get(word, word) for word in shlex.split(text)[1:]] for text in in_sentences(page)]
    shown += [words for words in sentences if len(words) > 1 and "…" not in words]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "reference").symlink_to(ROOT / "results" / "reference")
    blocks = "\n\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    monkeypatch.chdir(tmp_path)
    for arguments in shown:
        if ELSEWHERE.search(" ".join(arguments)):
            continue
        if "--plugin" in arguments:
            Path(arguments[arguments.index("--plugin") + 1]).write_text(blocks)
        code = exit_code([*arguments, *SHORTER.get(arguments[0], [])])
        assert code == 0, (arguments, said(capsys))
