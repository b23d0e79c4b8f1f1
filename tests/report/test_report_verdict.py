"""The words must follow the evidence: winner, tie, noise, collapse, hacking."""

from __future__ import annotations

import re
from pathlib import Path

from rfbench.report import Comparison, compare
from tests.report.run_writer import write_run


def verdict(root: Path) -> tuple[str, str]:
    found = compare([root], root / "out").verdicts
    assert len(found) == 1
    return found[0].headline, " ".join(found[0].sentences)


def test_a_clear_winner_is_named_with_its_lead(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "prdp", seed, [1.0, 4.0, 5.0 + 0.01 * seed])
        write_run(tmp_path, "ddpo", seed, [1.0, 2.0, 2.0 + 0.01 * seed])
    headline, sentences = verdict(tmp_path)
    assert headline.startswith("prdp wins: it ends at 5.010 in preference on seen prompts, +3.000 [")
    assert "(3 seeds each)" in headline
    assert "The lead over ddpo holds on 1 other prompt set: +3.000 [" in sentences
    assert "No run of any algorithm collapsed (6 runs)." in sentences


def test_a_tie_is_called_a_tie(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "prdp", seed, [1.0, 4.0 + 0.5 * seed])
        write_run(tmp_path, "ddpo", seed, [1.0, 3.9 + 0.5 * seed])
        write_run(tmp_path, "rwr", seed, [1.0, 1.1 + 0.01 * seed])
    headline, sentences = verdict(tmp_path)
    assert headline.startswith("No clear winner: prdp and ddpo cannot be told apart")
    assert re.search(
        r"The lead of prdp over the others: ddpo \+0\.100 \[-\S+, \S+\] \(may be noise\), rwr \+3\.390 \[\S+, \S+\]\.",
        sentences,
    )


def test_equal_ends_put_nobody_ahead(tmp_path: Path) -> None:
    for seed in range(3):
        for algorithm in ("prdp", "ddpo"):
            write_run(tmp_path, algorithm, seed, [1.0, 4.0 + 0.5 * seed])
    _, sentences = verdict(tmp_path)
    assert "end equal." in sentences
    assert "ahead" not in sentences


def test_one_seed_is_never_a_win(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, [1.0, 9.0])
    write_run(tmp_path, "ddpo", 0, [1.0, 2.0])
    headline, _ = verdict(tmp_path)
    assert "with one seed this cannot be told from noise" in headline


def test_the_best_of_the_bad_does_not_win(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "prdp", seed, [5.0, 4.0 + 0.01 * seed])
        write_run(tmp_path, "ddpo", seed, [5.0, 1.0 + 0.01 * seed])
    assert "but not above the base model" in verdict(tmp_path)[0]


def test_one_algorithm_is_described_alone(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, [1.0, 3.0])
    assert "prdp changes preference on seen prompts by +2.000 (1 seed); there is nothing" in verdict(tmp_path)[0]


def test_a_collapse_is_dated(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "prdp", seed, [1.0, 2.0, 3.0, 3.0])
        write_run(tmp_path, "ddpo", seed, [1.0, 3.0, 1.0 + seed, 0.0])
    assert (
        "ddpo collapsed in 2 of 2 seeds, at epochs 10 to 15; its largest drop from the best was 3.000"
        in verdict(tmp_path)[1]
    )


def test_reward_hacking_is_called_by_its_name(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "ddpo", seed, [1.0, 4.0 + 0.1 * seed], held_out=[0.6, 0.2 + 0.01 * seed])
        write_run(tmp_path, "prdp", seed, [1.0, 3.0 + 0.1 * seed], held_out=[0.6, 0.8 + 0.01 * seed])
    found: Comparison = compare([tmp_path], tmp_path / "out")
    seen = found.hacking.filter(evaluation_set="seen")
    assert dict(seen.select("variant", "verdict").iter_rows()) == {"ddpo": "hacked", "prdp": "carries over"}
    text = " ".join(found.verdicts[0].sentences)
    assert "Reward hacking: gold, which was not trained, fell while the training reward rose: ddpo -0.3900 [" in text
    assert "gold, which was not trained, rose too: prdp +0.2100 [" in text


def test_a_held_out_reward_within_noise_is_not_called_unchanged(tmp_path: Path) -> None:
    for seed, held_out in enumerate((0.3, 0.6, 0.9)):
        write_run(tmp_path, "prdp", seed, [1.0, 3.0 + 0.1 * seed], held_out=[0.6, held_out])
    text = " ".join(compare([tmp_path], tmp_path / "out").verdicts[0].sentences)
    assert "gold, which was not trained, cannot be told from unchanged: prdp +0.0000 [" in text


def test_a_gain_on_unseen_prompts_is_set_against_the_seen(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, [1.0, 3.0], sets={"seen": True})
    folder = write_run(tmp_path / "b", "prdp", 1, [1.0, 3.0], sets={"seen": True, "new": False})
    path = folder / "evals.jsonl"
    lines = path.read_text().splitlines()
    lines[-1] = lines[-1].replace('"mean": 3.0', '"mean": 2.0').replace("[2.9, 3.0, 3.1]", "[1.9, 2.0, 2.1]")
    path.write_text("\n".join(lines) + "\n")
    row = compare([tmp_path], tmp_path / "out").seen_unseen.row(0, named=True)
    assert (row["evaluation_set"], row["estimate"], row["seen_gain"], row["kept"]) == ("new", 1.0, 2.0, 0.5)


def test_runs_that_never_reach_the_threshold_are_said_to(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, [1.0, 3.0, 5.0])
    write_run(tmp_path, "ddpo", 0, [1.0, 1.5, 1.6])
    assert "prdp 640; never: ddpo." in verdict(tmp_path)[1]
