"""A run counts only if it is whole against its own suite; what is not is named, with what it lacks, and left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rfbench.errors import InputError
from rfbench.report import analyse
from tests.report.run_writer import write_lines, write_run

Records = list[dict[str, Any]]


def half_of_last(records: Records) -> Records:
    return [r for r in records if r["epoch"] < 20 or r["evaluation_set"] != "seen" or r["measure"] == "preference"]


def another_number_of_prompts(records: Records) -> Records:
    return [r | ({"per_prompt": r["per_prompt"][:2]} if r["epoch"] == 20 else {}) for r in records]


DAMAGES: dict[str, tuple[Callable[[Records], Records], str]] = {
    "last gone": (lambda rs: [r for r in rs if r["epoch"] < 20], "no gold on seen at epoch 20"),
    "only first": (lambda rs: [r for r in rs if r["epoch"] == 0], "no gold on seen at epochs 5, 10, 15, 20"),
    "first gone": (lambda rs: [r for r in rs if r["epoch"] > 0], "no gold on seen at epoch 0"),
    "one in the middle gone": (lambda rs: [r for r in rs if r["epoch"] != 10], "no gold on seen at epoch 10"),
    "half of last": (half_of_last, "no gold on seen at epoch 20"),
    "held-out reward gone": (lambda rs: [r for r in rs if r["measure"] != "gold"], "no gold on seen at epochs 0, 5"),
    "prompt set gone": (lambda rs: [r for r in rs if r["evaluation_set"] == "seen"], "nothing of prompt set unseen"),
    "diagnostic gone": (
        lambda rs: [r for r in rs if r["measure"] != "kl" or r["epoch"] < 15],
        "no kl on seen at epoch",
    ),
    "beyond the end": (
        lambda rs: rs + [r | {"epoch": 25} for r in rs if r["epoch"] == 20],
        "gold on seen at epoch 25, where the suite has no evaluation",
    ),
    "prompts gone": (another_number_of_prompts, "2 prompts of seen in one evaluation and 3 in another"),
    "prompts gone everywhere": (
        lambda rs: [r | {"per_prompt": r["per_prompt"][:2]} for r in rs],
        "2 prompts of seen, where the suite asks for 3",
    ),
    "images gone": (lambda rs: [r | {"images": 60} for r in rs], "60 images of seen, where the suite asks for 90"),
    "a set that the suite lacks": (
        lambda rs: rs + [r | {"evaluation_set": "extra"} for r in rs if r["evaluation_set"] == "seen"],
        "extra is no prompt set of its suite",
    ),
    "a mean that was edited": (
        lambda rs: [r | ({"mean": r["mean"] + 1} if r["epoch"] == 20 and r["measure"] == "gold" else {}) for r in rs],
        "gold on seen at epoch 20 is",
    ),
    "prompts that were edited": (
        lambda rs: [r | ({"per_prompt": [0.0, 0.0, 1.0]} if r["measure"] == "preference" else {}) for r in rs],
        "where its prompts have a mean of 0.333333",
    ),
    "a mean too large to be one": (
        lambda rs: [r | ({"mean": 1e308} if r["epoch"] == 20 else {}) for r in rs],
        "is 1e+308, where its prompts",
    ),
    "queries of another budget": (
        lambda rs: [r | {"reward_queries": 2 * r["reward_queries"]} for r in rs],
        "is after 1280 queries, where its suite has 640",
    ),
    "training reward called held-out": (
        lambda rs: [r | {"role": "held-out"} for r in rs],
        "preference on seen at epoch 0 is called held-out, where its suite trains on preference",
    ),
    "held-out reward called training": (
        lambda rs: [r | {"role": "training"} for r in rs],
        "gold on seen at epoch 0 is called training, where its suite trains on preference",
    ),
    "a negative standard error": (
        lambda rs: [r | ({"standard_error": -0.1} if r["epoch"] == 20 else {}) for r in rs],
        "no gold on seen at epoch 20",
    ),
    "nothing left": (lambda rs: [], "nothing of prompt set seen"),
    "last is no number": (
        lambda rs: [r | ({"mean": None} if r["epoch"] == 20 else {}) for r in rs],
        "no gold on seen at epoch 20",
    ),
}


def four_seeds(root: Path) -> None:
    for algorithm in ("prdp", "ddpo"):
        for seed in range(4):
            curve = [1.0, 2.0, 3.0, 4.0, 5.0 + seed]
            write_run(root, algorithm, seed, curve, held_out=[0.1, 0.2, 0.3, 0.4, 0.5], kl=[0.0, 1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_that_is_not_whole_is_named_and_does_not_count(tmp_path: Path, damage: str) -> None:
    four_seeds(tmp_path)
    change, lacking = DAMAGES[damage]
    path = tmp_path / "toy" / "prdp" / "seed-3" / "evals.jsonl"
    write_lines(path, change([json.loads(line) for line in path.read_text().splitlines()]))
    found = analyse([tmp_path])
    rows = found.estimates.filter(measure="preference", evaluation_set="seen", statistic="gain")
    assert dict(rows.select("variant", "estimate").iter_rows()) == pytest.approx({"ddpo": 5.5, "prdp": 5.0})
    assert dict(rows.select("variant", "seeds").iter_rows()) == {"ddpo": 4, "prdp": 3}
    assert (
        found.notes.summaries[0] == "toy: 1 of 4 runs of prdp lack evaluations; its figures come from the others alone"
    )
    note = next(note for note in found.notes.details if "is not whole" in note)
    assert str(path.parent) in note
    assert lacking in note


def test_whole_runs_have_no_note(tmp_path: Path) -> None:
    four_seeds(tmp_path)
    assert list(analyse([tmp_path]).notes) == []


def test_a_set_that_excludes_prompts_may_hold_fewer(tmp_path: Path) -> None:
    sets = {"seen": {"num_prompts": 5, "images_per_prompt": 30, "exclude": ["train"]}}
    for algorithm in ("prdp", "ddpo"):
        for seed in range(2):
            suite = {"evaluation": {"every": 5, "sets": sets}}
            write_run(tmp_path, algorithm, seed, [1.0, 2.0, 3.0, 4.0 + seed], sets={"seen": True}, suite=suite)
    assert list(analyse([tmp_path]).notes) == []


def test_an_older_whole_run_counts_beside_a_newer_broken_one_of_its_seed(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "prdp", 0, [1.0, 2.0])
    newer = write_run(tmp_path / "b", "prdp", 0, [1.0, 3.0], updated_at="2026-02-01T00:00:00+00:00") / "evals.jsonl"
    newer.write_text("\n".join(newer.read_text().splitlines()[:-1]) + "\n")
    assert analyse([tmp_path]).table["final"].to_list() == [2.0, 2.0]


def test_where_no_run_is_whole_each_is_named(tmp_path: Path) -> None:
    path = write_run(tmp_path, "prdp", 0) / "evals.jsonl"
    path.write_text("")
    with pytest.raises(InputError, match=r"prdp/seed-0 is not whole: nothing of prompt set seen"):
        analyse([tmp_path])


def test_a_finished_run_that_has_not_reached_its_end(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, epoch=15)
    with pytest.raises(InputError, match=r"prdp/seed-0 is not whole: it is at epoch 15 of 20"):
        analyse([tmp_path])


def test_seeds_that_are_one_run_are_named(tmp_path: Path) -> None:
    """A copy under another seed, or runs that learned nothing; the base model's evaluation is always the same."""
    for seed, end in enumerate([2.0, 3.0, 2.0, 4.0, 4.0]):
        write_run(tmp_path, "prdp", seed, [1.0, end])
    write_run(tmp_path, "ddpo", 0, [1.0, 2.0])
    notes = [note for note in analyse([tmp_path]).notes if "last digit" in note]
    assert [note.partition(" agree")[0] for note in notes] == ["toy: seeds 0, 2 of prdp", "toy: seeds 3, 4 of prdp"]


@pytest.mark.parametrize(("kept", "lost"), [(2, "epoch 5, 10, 15, 20"), (10, "epoch 15, 20")])
def test_epochs_without_a_record_are_named(tmp_path: Path, kept: int, lost: str) -> None:
    path = write_run(tmp_path, "prdp", 0) / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    assert any(f"metrics.jsonl: no record of {lost}: what the run had spent" in n for n in analyse([tmp_path]).notes)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"variant": "mine"}, "the variant is 'mine', but the suite's algorithms are prdp"),
        ({"suite": {"name": 5}}, "suite.name is 5, not a name"),
        ({"counters": {"images": -1}}, "counters.images: Input should be greater than or equal to 0"),
    ],
)
def test_a_record_that_contradicts_itself_is_left_out(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    write_run(tmp_path, "prdp", 0)
    path = write_run(tmp_path, "prdp", 1) / "run.json"
    record = json.loads(path.read_text())
    for key, value in change.items():
        record[key] = record[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(record))
    comparison = analyse([tmp_path])
    assert any(problem in note for note in comparison.notes)
    assert set(comparison.table["seeds"]) == {1}
