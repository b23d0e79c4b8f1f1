"""The commands on any terminal: help that explains itself, and settings of the user's own that change only looks."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from rich.console import Console

from rfbench import __version__
from rfbench.cli import app as cli
from rfbench.cli import main
from rfbench.report import analyse, write
from rfbench.report.render.watch import watch
from tests.commands import rfbench, said
from tests.report.run_writer import write_run

COMMANDS = ("run", "sweep", "watch", "compare", "evaluate", "sample", "export", "doctor", "fetch", "calibrate")
COMMANDS += ("list", "show", "new", "reward check", "reward convert")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example_that_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rfbench(*command.split(), "-h") == 0
    printed = said(capsys)
    assert "<bool>" not in printed
    example = printed.partition("Example: rfbench ")[2]
    assert example.startswith(command)
    assert (
        rfbench(*shlex.split(example.partition(" > ")[0]), "--help") == 0
    )  # an unknown option or a missing argument of it would come first


def test_the_commands_stand_under_headings(capsys: pytest.CaptureFixture[str]) -> None:
    assert rfbench("--help") == 0
    printed = said(capsys)
    places = [printed.index(text) for text in ("Train", "Read results", "Use what was trained", "Prepare", "Look up")]
    assert places == sorted(places)
    assert "--install-completion" in printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert rfbench("--version") == 0
    assert said(capsys).split() == ["rfbench", __version__]


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_colour_that_is_forced_into_a_file_makes_no_screen_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    write_run(tmp_path, "prdp", 0)
    output = io.StringIO()
    console = Console(file=output, width=100)
    assert console.is_terminal
    watch([tmp_path], console)  # once: on a screen it would go on until Ctrl-C
    assert output.getvalue().count("prdp") == 1
    assert not cli.is_live(console)
    monkeypatch.setattr(cli, "errors", Console(file=(errors := io.StringIO()), width=100))
    with cli.working("[comparing]"):
        pass
    assert errors.getvalue() == "[comparing] ...\n"


@pytest.mark.parametrize(
    ("encoding", "name"), [("ascii", "ré-日本".encode()), ("cp1252", b"results"), ("utf-8", b"res\xff")]
)
def test_characters_that_an_encoding_lacks_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, name: bytes
) -> None:
    root = tmp_path / os.fsdecode(name)
    write_run(root, "prdp-β", 0)
    write_run(root, "ddpo", 0, [1.0, 2.0], status="running")
    for command in (["watch", str(root)], ["compare", str(root), "--html", str(root / "page.html")]):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as ended:
            main(command)
        stream.flush()
        assert ended.value.code == 0
        assert b"prdp-" in stream.buffer.getvalue()  # type: ignore[attr-defined]
    assert (root / "page.html").exists()
    assert "prdp-β" in (root / "comparison" / "comparison.md").read_text(encoding="utf-8")


def pictures(folder: Path, out: Path) -> dict[str, bytes]:
    write(analyse([folder]), out)
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.suffix in (".png", ".svg")}


def test_a_users_plot_settings_change_no_byte_and_are_left_alone(tmp_path: Path) -> None:
    for algorithm in ("prdp", "ddpo"):
        write_run(tmp_path / "runs", algorithm, 0, held_out=[0.5, 0.6, 0.7, 0.8, 0.9])
    plain = pictures(tmp_path / "runs", tmp_path / "plain")
    assert {"comparison.png", "comparison.svg"} <= plain.keys()
    theirs = {"text.usetex": True, "savefig.bbox": "tight", "axes.facecolor": "black", "svg.fonttype": "none"}
    theirs |= {
        "font.family": "monospace",
        "axes.prop_cycle": matplotlib.cycler(color=["red"]),
        "figure.autolayout": True,
    }
    before = matplotlib.get_backend()
    try:
        matplotlib.use("svg")
        with matplotlib.rc_context(theirs):  # type: ignore[arg-type]
            assert pictures(tmp_path / "runs", tmp_path / "theirs") == plain
            assert matplotlib.get_backend() == "svg"
            assert matplotlib.rcParams["text.usetex"]
            assert matplotlib.rcParams["font.family"] == ["monospace"]
    finally:
        matplotlib.use(before)


@pytest.mark.parametrize("backend", ["module://no_such_backend", "webagg"])
def test_a_backend_that_is_not_here_is_not_asked_for(tmp_path: Path, backend: str) -> None:
    write_run(tmp_path / "runs", "prdp", 0)
    runs, out = str(tmp_path / "runs"), str(tmp_path / "out")
    code = f"from rfbench.report import analyse, write; write(analyse([{runs!r}]), {out!r})"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"MPLBACKEND": backend})
    assert (tmp_path / "out" / "comparison.png").exists()


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_who_has_gone_is_no_failure(tmp_path: Path, options: tuple[str, ...]) -> None:
    """As in `rfbench compare results/ | head -1`."""
    for name in ("prdp", "ddpo"):
        write_run(tmp_path, name, 0)
    command = [sys.executable, "-m", "rfbench", "compare", str(tmp_path), *options]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "comparing ...\n")
    assert (tmp_path / "comparison" / "comparison.md").is_file()


@pytest.mark.parametrize("arguments", [("--help",), ("tune", "--help"), ("show", "small-shapes")])
def test_a_page_of_help_may_be_cut_off(arguments: tuple[str, ...]) -> None:
    """As in `rfbench tune --help | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "rfbench", *arguments], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_log_that_has_gone_takes_no_output_with_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    """As in `rfbench compare results/ 2> >(head -0) > table.txt`."""
    for name in ("prdp", "ddpo"):
        write_run(tmp_path, name, 0)
    command = [sys.executable, "-m", "rfbench", "compare", str(tmp_path), *options]
    expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writing, text=True)
    os.close(writing)
    assert (done.returncode, done.stdout) == (0, expected)
    assert expected
