"""What the pages tell a reader to type works, as it stands there."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rfbench.cli import exit_code
from tests.commands import rfbench, said
from tests.documented import PAGES, ROOT, in_blocks, in_sentences, outside_blocks

PLACEHOLDERS = {"SUITE": "tiny-shapes", "A": "prdp", "N": "2", "RUN": "results/tiny-shapes/prdp/seed-0"}
# No longer than it must be to have trained once; a study tells what it would run.
SHORTER = {
    "run": ["epochs=1", "budget.reward_queries_per_epoch=16", "evaluation.sets.seen.num_prompts=2"],
    "sweep": ["--dry-run", "--out", "swept", "--set", "compute.chunk_size=8"],  # which times the network
    "tune": ["--dry-run"],
}
ON_SHAPES = ["evaluation.sets.unseen.num_prompts=2", "sampler.num_steps=4"]  # of a run, beside those
OF_ALGORITHMS = {
    "dpok": ["batch_size=16", "updates_per_epoch=2", "value_updates_per_epoch=2"],
    "nft": ["updates_per_epoch=1"],
    "rwr": ["passes=2"],
    "rwr-uniform": ["passes=2"],
}
LEAST = {  # commands in the blocks of a page: none of them is passed over
    "README.md": 12,
    "benchmarks/README.md": 16,
    "docs/algorithms/ddpo.md": 1,
    "docs/algorithms/dpok.md": 1,
    "docs/algorithms/forward-process.md": 2,
    "docs/algorithms/grpo.md": 2,
    "docs/algorithms/prdp.md": 1,
    "docs/algorithms/rwr.md": 3,
    "docs/causes.md": 2,
    "docs/cluster.md": 4,
    "docs/faults.md": 3,
    "docs/first-algorithm.md": 5,
    "docs/gaussian.md": 2,
    "docs/models.md": 7,
    "docs/processes.md": 3,
    "docs/rewards.md": 2,
    "docs/suites.md": 6,
}
# Other tests run these: on files of the published format, which are not at hand here, or on an installed scaffold.
ELSEWHERE = re.compile(r"large-hpsv2|large-pickscore-sd35|kohya|^fetch|^reward convert|^export|my-method")
# CI makes these; the package's own tests install a scaffold.
MADE = {"make", "pip", "git"}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def script(arguments: list[str]) -> str:
    """The text of what ``python`` is given to run: a file, a module, or a package."""
    if arguments[0] != "-m":
        return (ROOT / arguments[0]).read_text(encoding="utf-8")
    found = importlib.util.find_spec(arguments[1])
    if found and found.submodule_search_locations:
        found = importlib.util.find_spec(f"{arguments[1]}.__main__")
    assert found, arguments
    assert found.origin, arguments
    return Path(found.origin).read_text(encoding="utf-8")


def shorter_run(arguments: list[str]) -> list[str]:
    """The settings of a run that make it short; what the page sets is left as it is shown, but for the epochs."""
    on_shapes, label = any("-shapes" in word for word in arguments), arguments[1]
    own = [f"algorithms.{label}.config.{setting}" for setting in OF_ALGORITHMS.get(label, ())]
    settings = [*SHORTER["run"], *(ON_SHAPES + own if on_shapes else ())]
    shown = {word.partition("=")[0] for word in arguments} - {"epochs"}
    return [setting for setting in settings if setting.partition("=")[0] not in shown]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_has_the_options_that_it_is_shown_with(
    page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = in_blocks(page, tmp_path)
    assert len(shown) >= LEAST.get(name(page), 0), shown
    for command, *arguments in shown:
        if command == "rfbench":
            assert rfbench(*arguments, "--help") == 0, (arguments, said(capsys))
        elif "rfbench" in arguments:  # torchrun ... -m rfbench ...
            after = arguments[arguments.index("rfbench") + 1 :]
            assert rfbench(*after, "--help") == 0, (arguments, said(capsys))
        elif command == "python":
            options = [word for word in arguments if word.startswith("--")]
            assert [option for option in options if f'"{option}"' not in script(arguments)] == [], arguments
        else:
            assert command in MADE


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_command_stands_outside_of_a_block_that_is_read(page: Path) -> None:
    assert outside_blocks(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "    rfbench run prdp --suite small-shapes",
        "```\nrfbench reward check hpsv2\n```",
        "```console\n$ rfbench list\n```",
        "    python -m rfbench_benchmarks.pages.tables",
        "    CUDA_VISIBLE_DEVICES=0 python -m rfbench_benchmarks.pages.tables",
        "    python benchmarks/gpu/run.py --minutes 5",
        "    torchrun --nproc-per-node 8 -m rfbench run prdp",
    ],
)
def test_a_command_outside_of_a_block_is_found(line: str) -> None:
    text = "rfbench runs this.\n\n```bash\nrfbench list\n```\n\nrfbench lists that.\n\n"
    assert outside_blocks(text) == []
    assert len(outside_blocks(text + line)) == 1


def test_every_page_with_a_block_is_counted() -> None:
    with_blocks = {name(page) for page in PAGES if "```bash" in page.read_text(encoding="utf-8")}
    assert with_blocks == LEAST.keys()


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
    """In the page's order, in a folder with the reference results; plugin files are ours, or the page's own blocks."""
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
            plugin = Path(arguments[arguments.index("--plugin") + 1])
            plugin.parent.mkdir(parents=True, exist_ok=True)
            plugin.write_text((ROOT / plugin).read_text(encoding="utf-8") if (ROOT / plugin).is_file() else blocks)
        if arguments[0] == "new":  # in a process of its own, which knows no plugin of an earlier command
            subprocess.run([sys.executable, "-m", "rfbench", *arguments], check=True)
            continue
        shorter = SHORTER.get(arguments[0], [])
        if arguments[0] == "run":
            shorter = [part for setting in shorter_run(arguments) for part in ("--set", setting)]
        code = exit_code([*arguments, *shorter])
        assert code == 0, (arguments, said(capsys))
