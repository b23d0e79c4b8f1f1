"""`compare` from folders to files, and every input it must refuse or explain."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from rfbench.errors import InputError
from rfbench.report import Comparison, analyse, render_comparison, write
from tests.report.run_writer import SUITE, write_run


def two_algorithms(root: Path) -> None:
    for seed in range(3):
        write_run(root, "prdp", seed, [1.0, 2.0, 3.0, 4.0, 5.0 + seed], held_out=[0.5, 0.6, 0.7, 0.8, 0.9])
        write_run(root, "ddpo", seed, [1.0, 3.0, 4.0, 2.0, 0.5], held_out=[0.5, 0.6, 0.5, 0.4, 0.3])


def test_the_table_is_what_a_hand_computes(tmp_path: Path) -> None:
    two_algorithms(tmp_path)
    table = analyse([tmp_path]).table
    row = table.filter(variant="prdp", measure="preference", evaluation_set="seen").row(0, named=True)
    assert (row["seeds"], row["start"], row["start_spread"]) == (3, 1.0, 0.0)
    assert (row["final"], row["final_spread"]) == (6.0, 1.0)  # 5, 6, 7
    assert (row["drawdown"], row["best"]) == (0.0, 6.0)
    row = table.filter(variant="ddpo", measure="preference", evaluation_set="unseen").row(0, named=True)
    assert (row["best"], row["final"], row["drawdown"]) == (4.0, 0.5, 3.5)


def test_a_training_sampler_of_its_own_is_said_to_be_another_protocol(tmp_path: Path) -> None:
    two_algorithms(tmp_path)
    sampler = {"num_steps": 10, "eta": 0.0, "guidance_scale": None, "window": None}
    for file in tmp_path.rglob("ddpo/*/run.json"):
        record = json.loads(file.read_text())
        record["suite"]["sampler"] = {"num_steps": 50, "eta": 1.0, "guidance_scale": 5.0}
        record["suite"]["algorithms"]["ddpo"]["sampler"] = sampler
        file.write_text(json.dumps(record))
    notes = [note for note in analyse([tmp_path], allow_mixed=True).notes if "another protocol" in note]
    assert len(notes) == 1
    assert "ddpo trains on images of a sampler of its own, num_steps 10 (50), eta 0.0 (1.0); so it" in notes[0]


def test_the_training_reward_and_the_winner_come_first(tmp_path: Path) -> None:
    two_algorithms(tmp_path)
    table = analyse([tmp_path]).table
    assert table["role"].to_list() == ["training"] * 4 + ["held-out"] * 4
    assert table["evaluation_set"].to_list() == ["seen", "seen", "unseen", "unseen"] * 2
    assert table["variant"].to_list() == ["prdp", "ddpo"] * 4


def test_the_files_are_written_and_the_same_on_every_call(tmp_path: Path) -> None:
    two_algorithms(tmp_path)
    first = {f.name: f.read_bytes() for f in write(analyse([tmp_path / "toy"]), tmp_path / "a").files}
    again = {f.name: f.read_bytes() for f in write(analyse([tmp_path / "toy"]), tmp_path / "b").files}
    assert {"comparison.csv", "comparison.md", "comparison.png", "comparison.svg"} <= first.keys()
    assert first == again
    assert {"held-out.png", "seen-unseen.svg", "estimates.csv", "pairs.csv", "stability.csv"} <= first.keys()
    assert pl.read_csv(tmp_path / "a" / "comparison.csv").height == 8
    assert "| preference (training) | seen | prdp | 3 | 1.000 | 6.000 ± 1.000 |" in first["comparison.md"].decode()


def in_terminal(comparison: Comparison, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render_comparison(comparison))
    return console.export_text()


def test_the_terminal_shows_gain_beside_cost_in_80_columns_and_ends_with_the_verdict(tmp_path: Path) -> None:
    two_algorithms(tmp_path)
    text = in_terminal(analyse([tmp_path]))
    assert max(map(len, text.splitlines())) <= 80
    row = next(line.split() for line in text.splitlines() if line.split()[:1] == ["prdp"])
    assert row == ["prdp", "6.00", "+5.00", "[2.52,", "7.48]", "200", "100", "40", "100"]
    assert text.index("[2.52, 7.48]") < text.index("toy: prdp wins")


def test_small_values_and_long_names_are_not_cut_off_in_80_columns(tmp_path: Path) -> None:
    for algorithm in ("ddpo", "an-algorithm-with-a-long-name"):
        for seed in range(3):
            write_run(tmp_path, algorithm, seed, [0.0222, 0.0593 + seed * 0.0064, 0.0370 + seed * 0.01])
    text = in_terminal(analyse([tmp_path]))
    assert "…" not in text
    assert "+0.0248 [-0.0000, 0.0496]" in text
    assert text.index("toy: preference on seen prompts") < text.index("toy: No clear winner")


def test_one_seed_says_that_noise_cannot_be_told(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0)
    write_run(tmp_path, "ddpo", 0)
    comparison = analyse([tmp_path])
    assert any("one seed of ddpo, prdp" in note and "noise" in note for note in comparison.notes)
    assert comparison.table["final_spread"].null_count() == comparison.table.height


def test_one_algorithm_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0)
    assert any("only prdp" in note for note in analyse([tmp_path]).notes)


def test_an_empty_folder_says_how_to_make_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rfbench run prdp"):
        analyse([tmp_path])
    assert not (tmp_path / "out").exists()


def test_nothing_finished_lists_what_there_is(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, status="running", epoch=7)
    write_run(tmp_path, "ddpo", 1, status="failed", error="reward is NaN at epoch 3")
    with pytest.raises(InputError, match=r"running at epoch 7 of 20(.|\n)*|reward is NaN") as caught:
        analyse([tmp_path])
    assert "reward is NaN at epoch 3" in str(caught.value)


def test_running_and_failed_runs_are_left_out_and_named(tmp_path: Path) -> None:
    two_algorithms(tmp_path)
    write_run(tmp_path, "prdp", 3, [1.0, 9.0], status="running", epoch=5)
    write_run(tmp_path, "ddpo", 4, [1.0, 9.0], status="failed", error="loss is NaN")
    comparison = analyse([tmp_path])
    assert comparison.table["seeds"].to_list() == [3] * 8
    assert any("seed-3 is running at epoch 5" in note for note in comparison.notes)
    assert any("1 of 4 runs of ddpo failed" in note for note in comparison.notes)


def test_mixed_suites_of_one_name_are_refused_with_both_values(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0)
    budget = {"budget": {"reward_queries_per_epoch": 256}}
    other = write_run(tmp_path, "ddpo", 0, suite=budget, suite_hash="def")
    with pytest.raises(InputError) as caught:
        analyse([tmp_path])
    message = str(caught.value)
    assert "budget.reward_queries_per_epoch" in message
    assert "128" in message
    assert "256" in message
    assert str(other) in message
    assert "--allow-mixed" in message
    assert analyse([tmp_path], allow_mixed=True).table.height == 4


def test_one_algorithm_with_two_settings_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, config={"beta": 1e-4})
    write_run(tmp_path, "prdp", 1, config={"beta": 1e-5})
    with pytest.raises(InputError, match=r"algorithms\.prdp\.config\.beta: 0\.0001 against 1e-05"):
        analyse([tmp_path])


def test_other_hardware_settings_do_not_matter(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, suite={"compute": {"device": "cpu"}})
    write_run(tmp_path, "prdp", 1, suite={"compute": {"device": "cuda"}})
    assert analyse([tmp_path]).table["seeds"].to_list() == [2, 2]


@pytest.mark.parametrize("torn", ["prdp", "ddpo"])
def test_a_run_whose_metrics_are_noise_has_no_equal_compute(torn: str, tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "prdp", seed, forwards=40)
        write_run(tmp_path, "ddpo", seed, curve=(1.0, 2.0, 2.5, 3.0, 3.5))
    (tmp_path / "toy" / torn / "seed-0" / "metrics.jsonl").write_bytes(bytes(range(256)))
    comparison = analyse([tmp_path])
    assert comparison.pairs["equal_compute"].to_list() == [None, None]
    assert "At equal compute" not in str(comparison.verdicts[0])


def test_seconds_of_several_devices_are_named(tmp_path: Path) -> None:
    for seed, device in enumerate(("cpu", "NVIDIA H200")):
        write_run(tmp_path, "prdp", seed, device=device)
        write_run(tmp_path, "ddpo", seed, device="cpu")
    expected = "toy: seconds do not compare, since runs come from 2 devices (cpu: ddpo, prdp; NVIDIA H200: prdp)"
    assert expected in analyse([tmp_path]).notes.summaries
    assert not any("devices" in note for note in analyse([tmp_path / "toy" / "ddpo"]).notes)


def test_suites_of_two_names_stand_apart(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0)
    write_run(tmp_path, "prdp", 0, suite=SUITE | {"name": "large"}, suite_hash="def")
    comparison = analyse([tmp_path])
    assert comparison.table["suite"].to_list() == ["large", "large", "toy", "toy"]
    assert {f.name for f in write(comparison, tmp_path / "out").files if f.suffix == ".png"} >= {
        "comparison-large.png",
        "comparison-toy.png",
    }


def test_a_duplicate_seed_counts_once_and_the_newer_wins(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "prdp", 0, [1.0, 2.0], updated_at="2026-01-01T00:00:00+00:00")
    write_run(tmp_path / "b", "prdp", 0, [1.0, 3.0], updated_at="2026-01-02T00:00:00+00:00")
    comparison = analyse([tmp_path])
    assert comparison.table["final"].to_list() == [3.0, 3.0]
    assert comparison.table["seeds"].to_list() == [1, 1]
    assert any("repeats seed 0" in note for note in comparison.notes)


def test_markup_in_a_name_is_only_text(tmp_path: Path) -> None:
    write_run(tmp_path, "[red]x[/red]", 0, sets={"<b>|[/]": True})
    comparison = analyse([tmp_path])
    write(comparison, tmp_path / "out")
    assert "[red]x[/red]" in in_terminal(comparison, 200)
    assert "&lt;b>\\|[/]" in (tmp_path / "out" / "comparison.md").read_text()


def test_torch_is_never_imported() -> None:
    code = "import sys, rfbench.report; print(sorted({'torch', 'diffusers', 'matplotlib', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_json_holds_every_frame(tmp_path: Path) -> None:
    two_algorithms(tmp_path)
    comparison = analyse([tmp_path])
    data = json.loads(comparison.to_json())
    assert data["verdicts"][0]["suite"] == "toy"
    assert len(data["estimates"]) == comparison.estimates.height
    assert data["table"][0]["final"] == 6.0
    assert data["table"][0]["start_spread"] == 0.0


SLOW = [pytest.param(x, marks=pytest.mark.slow) for x in ("epochs", "steps", "calls")]


@pytest.mark.parametrize("x", ["queries", "seconds", *SLOW])
def test_every_x_axis_draws(tmp_path: Path, x: str) -> None:
    two_algorithms(tmp_path)
    plots = write(analyse([tmp_path]), tmp_path / "out", x=x).plots
    assert [plot.name for plot in plots] == ["comparison", "held-out", "seen-unseen"]


def test_an_unknown_x_axis_lists_the_known(tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(InputError, match="queries, epochs, steps, calls, seconds"):
        write(analyse([tmp_path]), tmp_path / "out", x="minutes")


def test_names_that_look_like_mathematics_are_drawn_as_they_are(tmp_path: Path) -> None:
    write_run(tmp_path, "a$b^$", 0, sets={"$_{": True}, held_out=[1.0, 2.0, 3.0, 4.0, 5.0])
    assert write(analyse([tmp_path]), tmp_path / "out", html=tmp_path / "page.html").plots


def test_runs_without_any_reward_are_compared_as_far_as_they_go(tmp_path: Path) -> None:
    path = write_run(tmp_path, suite={"reward": {}}) / "evals.jsonl"
    path.write_text(path.read_text().replace('"training"', '"diagnostic"'))
    comparison = analyse([tmp_path])
    write(comparison, tmp_path / "out", html=tmp_path / "page.html")
    assert comparison.table.is_empty()
    assert comparison.verdicts[0].headline == "No training reward was evaluated."


def test_a_single_evaluation_is_enough_for_a_table(tmp_path: Path) -> None:
    for algorithm in ("prdp", "ddpo"):
        for seed in range(2):
            write_run(tmp_path, algorithm, seed, [2.0 + seed])
    comparison = analyse([tmp_path])
    write(comparison, tmp_path / "out", html=tmp_path / "page.html")
    assert comparison.table["final"].to_list() == [2.5] * 4


def test_what_failed_is_said_first_and_never_cut_off(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0)
    for seed in range(1, 60):
        write_run(tmp_path, "prdp", seed, [1.0], status="running")
    for seed in range(3):
        write_run(tmp_path, "ddpo", seed, status="failed", error="out of memory")
    comparison = analyse([tmp_path])
    text = in_terminal(comparison, 200)
    assert "toy: 3 of 3 runs of ddpo failed; it has no figures" in text
    assert "… and 52 more" in text
    write(comparison, tmp_path / "out")
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert "- toy: 3 of 3 runs of ddpo failed; it has no figures" in markdown
    assert markdown.count("out of memory") == 3
    assert markdown.count("is running") == 59


@pytest.mark.parametrize(("unit", "version"), [("points", "2"), ("share", "1")])
@pytest.mark.parametrize("variant", ["prdp", "ddpo"])
def test_rewards_of_other_numbers_are_refused(tmp_path: Path, variant: str, unit: str, version: str) -> None:
    """Among the seeds of one algorithm, and between two; records that hold neither have nothing to disagree on."""
    write_run(tmp_path, "prdp", 0, rewards={"preference": {"unit": "points", "version": "1"}})
    write_run(tmp_path, variant, 1, rewards={"preference": {"unit": unit, "version": version}})
    changed = f"unit of preference: 'points' against '{unit}'|version of preference: '1' against '{version}'"
    flipped = f"unit of preference: '{unit}' against 'points'|version of preference: '{version}' against '1'"
    with pytest.raises(InputError, match=f"toy differ and cannot be averaged(.|\n)*({changed}|{flipped})"):
        analyse([tmp_path])
    write_run(tmp_path, variant, 1)
    assert set(analyse([tmp_path]).table["variant"]) == {"prdp", variant}
