"""The page's parts as data: a suite that is judged by its regret, a single seed, a single measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rfbench.report import Comparison, analyse
from rfbench.report.analysis.curves import COMPUTE
from rfbench.report.render.colours import looks
from rfbench.report.render.page import write_page
from rfbench.report.render.page.charts import chart_data
from rfbench.report.render.page.matrix import matrices
from rfbench.report.render.page.overview import facts, line
from rfbench.report.render.page.standings import standings
from tests.report.run_writer import write_lines, write_run

REGRET = {"measure": "regret", "role": "diagnostic", "unit": "reward"}
ENDS = {"prdp": (2.0, 0.001), "dpok": (3.0, 0.1), "ddpo": (9.0, 4.0)}  # reward, regret


@pytest.fixture
def known(tmp_path: Path) -> Comparison:
    """Three algorithms in a world whose optimum is known: who ends with the highest reward has the highest regret."""
    for seed in range(3):
        for name, (reward, regret) in ENDS.items():
            path = write_run(tmp_path, name, seed, [1.0, reward + 0.1 * seed]) / "evals.jsonl"
            found = [json.loads(text) for text in path.read_text().splitlines()]
            values = {0: 0.4, 5: regret * (1 + 0.1 * seed)}
            exact = [r | REGRET | {"mean": values[r["epoch"]], "per_prompt": [values[r["epoch"]]] * 3} for r in found]
            write_lines(path, [*found, *exact])
    return analyse([tmp_path])


def test_a_lower_regret_is_the_better_one_everywhere(known: Comparison, tmp_path: Path) -> None:
    curves = known.curves.with_columns(COMPUTE)
    on_top = line(known.verdicts[0], known.estimates, known.contrasts, curves)
    assert (on_top.outcome, on_top.leader, on_top.judged_by) == ("prdp wins", "prdp", "lowest regret, seen prompts")
    table = standings(known.estimates, curves)
    assert [row.variant for row in table.rows] == ["prdp", "dpok", "ddpo"]
    assert (table.columns[0].measure, table.columns[0].of) == ("regret (diagnostic)", "final, seen prompts")
    assert [row.bars[0].out if row.bars[0] else None for row in table.rows] == ["", "", "above"]
    (matrix,) = matrices(known.pairs.filter(measure="regret", evaluation_set="seen"), {"regret": 3})
    assert matrix.algorithms == ["prdp", "dpok", "ddpo"]
    entry = matrix.rows["prdp"][2]
    assert entry is not None
    assert (entry.text, entry.told) == ("-4.399", "better")
    page = write_page(known, [], tmp_path / "page.html", "queries").read_text()
    assert json.loads(page.split('class="data">')[1].split("</script>")[0])["y"] == "regret"


def test_one_seed_has_curves_and_no_bands(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, [1.0, 2.0])
    write_run(tmp_path, "ddpo", 0, [1.0, 1.5])
    found = analyse([tmp_path])
    data = chart_data(
        found.curves.with_columns(COMPUTE), looks(["prdp", "ddpo"]), ["prdp", "ddpo"], "", "queries", None
    )
    (measure,) = data["measures"]
    curve = measure["sets"][0]["curves"]["prdp"]
    assert curve["gain"] == [0, 1]
    assert curve["gain_low"] == [None, None]
    (matrix, _) = matrices(found.pairs, {"preference": 2})
    entry = matrix.rows["prdp"][1]
    assert entry is not None
    assert (entry.text, entry.detail, entry.told) == ("+0.50", "", "")
    on_top = line(found.verdicts[0], found.estimates, found.contrasts, found.curves.with_columns(COMPUTE))
    assert (on_top.outcome, on_top.told) == ("prdp ends highest; it may be noise", False)


def test_axes_that_no_run_recorded_are_not_offered(tmp_path: Path) -> None:
    (write_run(tmp_path, "prdp", 0) / "metrics.jsonl").unlink()
    found = analyse([tmp_path])
    data = chart_data(found.curves.with_columns(COMPUTE), looks(["prdp"]), ["prdp"], "preference", "seconds", None)
    assert [axis["key"] for axis in data["axes"]] == ["queries", "epochs"]
    assert data["x"] == "epochs"


def test_runs_of_several_commits_and_days_are_all_named(tmp_path: Path) -> None:
    write_run(tmp_path, "prdp", 0, git_commit="a" * 40, updated_at="2026-01-01T00:00:00+00:00")
    write_run(tmp_path, "prdp", 1, git_commit="b" * 40, updated_at="2026-01-03T00:00:00+00:00")
    found = dict(facts(list(analyse([tmp_path]).runs.records.values())))
    assert found["rfbench"] == "0.1.0, commit aaaaaaa, bbbbbbb"
    assert found["runs ended"] == "2026-01-01 to 2026-01-03"
    assert found["budget"] == "2,560 reward queries: 128 in each of 20 epochs"
