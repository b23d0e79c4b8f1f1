"""A short campaign: some trials of every kind that takes a second or two, and proof that it tells what broke."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import rfbench, said
from tests.faults import bad_input, campaign, plugins
from tests.faults.campaign import Kind, Outcome, attempt, table
from tests.faults.contents import require_same
from tests.faults.trial import Broken, Trial

SHORT = [  # kind and seed, of one algorithm, whose undisturbed run is then made once; `make faults` makes many more
    ("kill", 35),
    ("kill-export", 14),
    ("disk-limit", 6),
    ("damage-resume", 1),
    ("plugin-refused", 0),
    ("writers", 1),
    ("suites", 2),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.mark.parametrize(("kind", "seed"), SHORT)
def test_rfbench_holds(kind: str, seed: int, folder: Path) -> None:
    assert attempt(kind, seed, folder).broke is None


@pytest.mark.parametrize(("seed", "file"), [(0, "evals.jsonl"), (2, "metrics.jsonl")])
def test_a_plugin_that_shifts_its_scores_is_not_harmless(
    seed: int, file: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in an evaluation, which changes no weight, and once in an epoch."""
    monkeypatch.setattr(plugins, "HARMLESS", {"shifted scores": "return scores + 1"})
    broke = attempt("plugin-harmless", seed, folder).broke
    assert broke is not None
    assert f"{file}: not what the world's own reward leaves" in broke


@pytest.mark.parametrize("command", bad_input.COMMANDS, ids=" ".join)
def test_what_gets_nonsense_is_a_command_without_it(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Else every trial would be refused for its command, whatever the nonsense is."""
    assert rfbench(*command, "--help") == 0, said(capsys)


def _breaks(trial: Trial) -> None:
    trial.steps.append("a step")
    raise Broken("a reason")


def test_what_breaks_is_counted_and_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(campaign.KINDS, "breaks", Kind("something", 3, _breaks))
    monkeypatch.setitem(campaign.KINDS, "fails", Kind("the campaign itself", 3, lambda trial: print(1 / 0)))
    outcomes = campaign.campaign(["breaks", "fails"], tmp_path, trials=2)
    assert [outcome.broke is not None for outcome in outcomes] == [True] * 4
    assert outcomes[0] == Outcome("breaks", 0, broke="a step\n  a reason")
    assert "| something | 2 |  | 0 | 2 | `breaks` 0-1 |" in table(outcomes)


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", "other"), ("b.txt", "one more"), ("run.json", '{"epoch": 3}'), ("run.json", None)]
)
def test_folders_that_differ_are_told_apart(name: str, content: str | None, tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        (folder / "a.txt").write_text("the same")
        (folder / "run.json").write_text(
            '{"epoch": 2, "started_at": "' + folder.name + '", "phase_seconds": {"load": 1}}'
        )
    require_same(tmp_path / "one", tmp_path / "two")
    if content is None:
        (tmp_path / "two" / name).unlink()
    else:
        (tmp_path / "two" / name).write_text(content)
    with pytest.raises(Broken):
        require_same(tmp_path / "one", tmp_path / "two")
