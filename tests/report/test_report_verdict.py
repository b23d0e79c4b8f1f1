"""The words must follow the evidence: winner, tie, noise, collapse, hacking."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rfbench.report import Comparison, analyse
from rfbench.report.analysis import contrasts
from tests.report.run_writer import write_lines, write_run


def verdict(root: Path) -> tuple[str, str]:
    found = analyse([root]).verdicts
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
        r"over the others, in intervals corrected for 2 comparisons: "
        r"ddpo \+0\.100 \[-\S+, \S+\] \(may be noise\), rwr \+3\.390 \[\S+, \S+\]\.",
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


def test_a_single_run_beside_others_is_named_and_changes_nothing(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "prdp", seed, [1.0, 4.0, 5.0 + 0.01 * seed])
        write_run(tmp_path, "ddpo", seed, [1.0, 2.0, 2.0 + 0.01 * seed])
    alone = analyse([tmp_path])
    for name, end in (("best", 9.0), ("middle", 3.0), ("worst", 0.5)):
        write_run(tmp_path, name, 0, [1.0, 2.0, end])
    beside = analyse([tmp_path])
    assert beside.verdicts[0].headline == alone.verdicts[0].headline
    assert beside.contrasts.equals(alone.contrasts)
    assert "Of one seed each, and so not compared: best 9.000, middle 3.000, worst 0.500." in verdict(tmp_path)[1]


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
    found: Comparison = analyse([tmp_path])
    seen = found.hacking.filter(evaluation_set="seen")
    assert dict(seen.select("variant", "verdict").iter_rows()) == {"ddpo": "hacked", "prdp": "carries over"}
    text = " ".join(found.verdicts[0].sentences)
    assert "Reward hacking: gold, which was not trained, fell while the training reward rose: ddpo -0.3900 [" in text
    assert "gold, which was not trained, rose too: prdp +0.2100 [" in text


def test_a_held_out_reward_within_noise_is_not_called_unchanged(tmp_path: Path) -> None:
    for seed, held_out in enumerate((0.3, 0.6, 0.9)):
        write_run(tmp_path, "prdp", seed, [1.0, 3.0 + 0.1 * seed], held_out=[0.6, held_out])
    text = " ".join(analyse([tmp_path]).verdicts[0].sentences)
    assert "gold, which was not trained, cannot be told from unchanged: prdp +0.0000 [" in text


def test_a_gain_on_unseen_prompts_is_set_against_the_seen(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "prdp", 1, [1.0, 3.0], sets={"seen": True, "new": False})
    path = folder / "evals.jsonl"
    lines = path.read_text().splitlines()
    lines[-1] = lines[-1].replace('"mean": 3.0', '"mean": 2.0').replace("[2.9, 3.0, 3.1]", "[1.9, 2.0, 2.1]")
    path.write_text("\n".join(lines) + "\n")
    row = analyse([tmp_path]).seen_unseen.row(0, named=True)
    assert (row["evaluation_set"], row["estimate"], row["seen_gain"], row["kept"]) == ("new", 1.0, 2.0, 0.5)


def test_runs_that_never_reach_the_threshold_are_said_to(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, [1.0, 3.0, 5.0])
    write_run(tmp_path, "ddpo", 0, [1.0, 1.5, 1.6])
    assert "prdp 640; never: ddpo." in verdict(tmp_path)[1]


REGRET = {"measure": "regret", "role": "diagnostic", "unit": "reward"}


def test_where_the_optimum_is_known_the_lowest_regret_wins_and_not_the_highest_reward(tmp_path: Path) -> None:
    for seed in range(3):
        for algorithm, reward, regret in (("prdp", 2.0, 1e-5), ("ddpo", 9.0, 4.0)):
            path = write_run(tmp_path, algorithm, seed, [1.0, reward + 0.01 * seed]) / "evals.jsonl"
            found = [json.loads(line) for line in path.read_text().splitlines()]
            ends = {0: 0.4, 5: regret * (1 + 0.1 * seed)}
            exact = [r | REGRET | {"mean": ends[r["epoch"]], "per_prompt": [ends[r["epoch"]]] * 3} for r in found]
            write_lines(path, [*found, *exact])
    headline, sentences = verdict(tmp_path)
    assert headline.startswith("prdp wins: it ends at 1.1e-05 in regret on seen prompts, +4.4 [")
    assert "below ddpo, the next best" in headline
    regret = analyse([tmp_path]).pairs.filter(measure="regret")
    assert set(regret["variant"]) == {"prdp"}
    assert regret["high"].max() < 0
    assert "No run of any algorithm collapsed" in sentences  # of the training reward, which the regret is not


def test_at_equal_compute_a_slower_algorithm_may_be_behind(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "prdp", seed, [1.0, 2.0, 3.0 + 0.01 * seed], forwards=100)
        write_run(tmp_path, "ddpo", seed, [1.0, 2.0, 2.5 + 0.01 * seed], forwards=50)
    found = analyse([tmp_path])
    row = found.pairs.filter(evaluation_set="seen").row(0, named=True)
    assert (row["variant"], row["difference"]) == ("prdp", pytest.approx(0.5))
    # prdp had spent 1,000 after 5 epochs (500 forwards, 250 backwards counted twice), what ddpo had after 10
    assert (row["equal_compute"], row["equal_difference"]) == (1000.0, pytest.approx(2.0 - 2.51))
    assert "prdp is behind ddpo (-0.510 [" in verdict(tmp_path)[1]


def test_equal_ends_in_rounded_prompt_means_are_ranked_by_the_unrounded_mean(tmp_path: Path) -> None:
    """Records round each prompt's mean; the ranking by those and by `mean` may differ."""
    for seed in range(2):
        for algorithm, end in (("prdp", 2.0000004), ("ddpo", 2.0000001)):
            path = write_run(tmp_path, algorithm, seed, [1.0, end]) / "evals.jsonl"
            rounded = [1.90001, 2.00001, 2.10001] if algorithm == "ddpo" else [1.9, 2.0, 2.1]
            records = [json.loads(line) for line in path.read_text().splitlines()]
            write_lines(path, [r | ({"per_prompt": rounded} if r["epoch"] else {}) for r in records])
    found = analyse([tmp_path])
    assert found.contrasts["variant"][0] == "prdp"
    finals = found.estimates.filter(statistic="final", evaluation_set="seen")
    assert dict(finals.select("variant", "estimate").iter_rows()) == pytest.approx(
        {"ddpo": 2.0000001, "prdp": 2.0000004}, abs=1e-12
    )


def test_holm_against_the_published_example() -> None:
    """Holm 1979's procedure on p = .01, .04, .03, .005: .03, .06, .06, .02 (as R's p.adjust gives)."""
    corrected = contrasts.holm([0.01, 0.04, 0.03, 0.005])
    assert [p for p, _ in corrected] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [level for _, level in corrected] == pytest.approx([1 - 0.05 / 3, 0.975, 0.975, 1 - 0.05 / 4])


def test_an_interval_of_the_verdict_excludes_0_exactly_where_it_is_told_from_noise(tmp_path: Path) -> None:
    ends = {"a": 5.0, "b": 4.6, "c": 4.55, "d": 4.7, "e": 1.0}
    for seed, offset in enumerate((-0.2, 0.05, 0.15)):
        for algorithm, end in ends.items():
            write_run(tmp_path, algorithm, seed, [1.0, end + offset], per_prompt=[0.0, 0.0, 0.0])
    found = analyse([tmp_path]).contrasts
    assert found["told"].to_list() == [low > 0 for low in found["low"]]
    assert set(found["told"]) == {True, False}
    plain = analyse([tmp_path]).pairs.filter(evaluation_set="seen", variant="a")
    leads = dict(found.select("other", "low").iter_rows())
    assert all(leads[row["other"]] < row["low"] for row in plain.iter_rows(named=True) if row["other"] != "b")


def test_an_interval_never_leaves_what_is_possible(tmp_path: Path) -> None:
    for seed, end in enumerate((0.9, 0.99, 0.999)):
        path = write_run(
            tmp_path, "prdp", seed, [0.02, 0.01, end], per_prompt=[0.0] * 3, kl=[0.0, 1.0 + seed, 9.0 * seed]
        )
        path = path / "evals.jsonl"
        path.write_text(path.read_text().replace('"logits"', '"share of images"'))
    found = {
        row["statistic"]: row for row in analyse([tmp_path]).estimates.filter(role="training", seen=True).to_dicts()
    }
    assert found["final"]["high"] == 1.0
    assert found["gain"]["high"] == pytest.approx(1 - 0.02)
    assert 0 <= found["epochs_below_base"]["low"] <= found["epochs_below_base"]["high"] <= 10
    assert found["drawdown"]["low"] >= 0
    kl = analyse([tmp_path]).estimates.filter(measure="kl")
    assert kl["low"].min() == 0.0
