"""rfbench tune: the points, the suite that trials run on, what it says of bad input, and a whole search."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
from pydantic import Field

from rfbench.cli import exit_code
from rfbench.errors import InputError
from rfbench.planning.plan import make_plan
from rfbench.plugins import registry
from rfbench.running.folder import RunFolder
from rfbench.suite.loading import load_suite
from rfbench.suite.settings import Settings, search
from rfbench.sweeps import tuning
from rfbench.sweeps.tuning import SearchRange, declared_ranges, make_search, points, suite_lines

pytestmark = pytest.mark.slow

RATES = (1e-5, 1e-3)
PLUGIN = """
from pydantic import Field
from rfbench.suite.settings import Settings, search
from rfbench_algorithms.rwr import RWR, RWRConfig

class MineConfig(RWRConfig):
    strength: float = Field(1.0, json_schema_extra=search(0.1, 10))

class Mine(RWR):
    Config = MineConfig

class BareConfig(Settings):
    strength: float = 1.0

class Bare(RWR):
    Config = BareConfig
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A user's file with an algorithm that declares a range, and one that declares none."""
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    return file


def test_points_fill_their_ranges_evenly_and_are_always_the_same() -> None:
    ranges = [SearchRange(1e-5, 1e-3), SearchRange(0.0, 10.0, "linear"), SearchRange(1, 8, "linear", integer=True)]
    found = points(ranges, 8)
    assert found == points(ranges, 8)
    assert found[:5] == points(ranges, 5)  # more trials add to those that were run
    rates, linear, integers = zip(*found, strict=True)
    assert sorted(int(4 * (value / 2.5 // 1) / 4) for value in linear) == [0, 0, 1, 1, 2, 2, 3, 3]  # Sobol's balance
    assert sum(rate < 1e-4 for rate in rates) == 4  # half on each side of the log scale's middle
    assert all(isinstance(value, int) and 1 <= value <= 8 for value in integers)


@pytest.mark.parametrize(
    ("low", "high", "scale", "message"),
    [(0.0, 1.0, "log", "needs 0 < low < high"), (3.0, 2.0, "linear", "needs low < high")],
)
def test_a_range_that_cannot_be_searched_is_refused(low: float, high: float, scale: str, message: str) -> None:
    class Config(Settings):
        field: float = Field(1.0, json_schema_extra=search(low, high, scale))  # type: ignore[arg-type]

    with pytest.raises(InputError, match=rf"Config\.field.*{message}"):
        declared_ranges(Config)


def test_the_built_in_algorithms_declare_equally_many_ranges_around_values_that_they_accept() -> None:
    for name in ("prdp", "ddpo", "dpok", "rwr"):
        config = registry.find("algorithms", name).Config
        ranges = declared_ranges(config)
        assert len(ranges) == 2, name
        for share in (0.0, 1.0):
            config(**{field: found.at(share) for field, found in ranges.items()})


def test_trials_are_judged_on_unseen_prompts_of_their_own_and_their_settings_reach_the_run(tmp_path: Path) -> None:
    made = make_search("small-shapes", "ddpo", 4, tmp_path, learning_rates=RATES, overrides=["epochs=12"])
    assert [trial.job.label for trial in made.trials] == [f"ddpo-trial-0{number}" for number in range(4)]
    own = make_plan(load_suite("small-shapes"), "ddpo", 0).evaluation_prompts["unseen"]
    for trial in made.trials:
        plan = trial.job.plan
        assert (plan.suite.name, plan.suite.epochs, plan.seed) == ("small-shapes-tuning", 12, tuning.SEED)
        assert list(plan.evaluation_prompts) == ["tuning"]
        assert plan.settings.optimizer.learning_rate == trial.settings["optimizer.learning_rate"]
        assert plan.algorithm.config.clip_range == trial.settings["config.clip_range"]
        assert plan.algorithm.name == "ddpo"
        assert plan.settings.images_per_prompt == 8  # the suite's table is the start
    assert made.shared_prompts == len(set(made.prompts) & set(own)) < len(own) / 2
    assert not set(made.prompts) & set(made.trials[0].job.plan.prompts["train"])


def test_a_config_without_ranges_is_told_how_to_declare_them(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tune", "tiny-shapes", "--trials", "2", "--out", str(tmp_path / "out"), "--plugin", str(plugin)]
    assert exit_code([*command, "--algorithm", "bare"]) == 2
    said = capsys.readouterr().err
    assert "BareConfig of bare declares no ranges" in said
    assert "json_schema_extra=search(1e-5, 1e-2)" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimum-gaussian", "--algorithm", "ddpo"], "no evaluation set of unseen prompts"),
        (
            ["tiny-shapes", "--algorithm", "ddpo", "--learning-rates", "1e-3,1e-5"],
            "expected 0 < 0.001 < 1e-05, and both finite",
        ),
        (["tiny-shapes", "--algorithm", "ddpo", "--learning-rates", "1e-5,inf"], "and both finite"),
        (["tiny-shapes", "--algorithm", "ddpo", "--learning-rates", "3e-4"], "expected LOW,HIGH"),
        (
            ["tiny-shapes", "--algorithm", "nft", "--set", "algorithms.nft.images_per_prompt=64"],
            "error: trial 0 (optimizer.learning_rate=",
        ),
        (
            [
                "tiny-shapes",
                "--algorithm",
                "dpo",
                "--set",
                "algorithms.dpo={config={beta=1},optimizer={learning_rate=1e-4}}",
            ],
            "which leaves nothing to search",
        ),
        (["tiny-shapes", "--algorithm", "dppo"], "did you mean"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["tune", *arguments, "--trials", "2"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_an_algorithm_that_the_suite_does_not_list_is_remarked_with_the_command_that_tunes_it(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--suite", "tiny-shapes", "--plugin", str(plugin), "--dry-run"]
    short = [part for text in ("epochs=1", "evaluation.every=1") for part in ("--set", text)]
    for command in (["run", "mine"], ["sweep", "mine", "ddpo", "--seeds", "0", "--out", str(tmp_path / "out")]):
        assert exit_code([*command, *options, *short]) == 0
        said = capsys.readouterr().err
        assert f"rfbench tune tiny-shapes --algorithm mine --trials 8 --plugin {plugin}" in " ".join(said.split())
        assert "settings for ddpo" not in said


def test_a_search_of_a_users_algorithm_runs_goes_on_and_names_the_best(
    plugin: Path, suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command twice; the second time nothing is left to run, and its table is the same."""
    out = tmp_path / "out"
    unseen = tmp_path / "unseen.txt"
    unseen.write_text("a fox\na hare\na mole")
    text = suite_file.read_text().replace(
        "prompts = { train", f'prompts = {{ unseen = {{ name = "file", path = "{unseen}" }}, train'
    )
    text += '[evaluation.sets.unseen]\nprompts = "unseen"\nseen = false\nnum_prompts = 2\nimages_per_prompt = 2\n'
    suite_file.write_text(text)
    command = ["tune", str(suite_file), "--algorithm", "mine", "--trials", "2", "--out", str(out), "--jobs", "1"]
    command += ["--plugin", str(plugin), "--set", "epochs=1"]
    assert exit_code(command) == 0
    first = capsys.readouterr().out
    folders = sorted(out.glob("*/*/seed-100"))
    assert [folder.parent.name for folder in folders] == ["mine-trial-00", "mine-trial-01"]
    gains = {}
    for folder in folders:
        means = {r.epoch: r.mean for r in RunFolder(folder, writer=False).read("evals") if r.role == "training"}
        gains[folder.parent.name] = means[1] - means[0]
    best = max(gains, key=lambda name: gains[name])
    rows = [line.split() for line in first.splitlines() if "mine-trial" in line and "│" in line]
    assert rows, first
    written = {path: path.read_bytes() for folder in folders for path in folder.rglob("*.json*")}
    assert exit_code(command) == 0
    second = capsys.readouterr().out
    assert {path: path.read_bytes() for path in written} == written
    lines = second[second.index("[algorithms.mine]") :]
    assert first.endswith(lines)
    record = RunFolder(out / folders[0].parent.parent.name / best / "seed-100", writer=False).require_run()
    table = record.suite["algorithms"][best]
    assert f"learning_rate = {table['optimizer']['learning_rate']}" in lines
    assert f"strength = {table['config']['strength']}" in lines


def test_the_lines_for_the_suite_are_toml_that_gives_the_trials_settings() -> None:
    import tomllib

    suite = load_suite("small-shapes")
    settings = {"optimizer.learning_rate": 1.23e-05, "config.clip_range": 0.00045, "config.updates_per_epoch": 3}
    table = tomllib.loads(suite_lines("ddpo", suite, settings))["algorithms"]["ddpo"]
    assert table == {
        "images_per_prompt": 8,
        "optimizer": {"learning_rate": 1.23e-05},
        "config": {"clip_range": 0.00045, "updates_per_epoch": 3},
    }


@pytest.mark.parametrize(
    ("algorithm", "overrides"),
    [
        ("awm-lag", []),
        ("nft", []),
        ("grpo", ["algorithms.grpo.shared_initial_latents=true", "algorithms.grpo.sampler.window.size=2"]),
    ],
)
def test_those_lines_alone_run_as_the_trial_did(tmp_path: Path, algorithm: str, overrides: list[str]) -> None:
    made = make_search("small-shapes-arena", algorithm, 1, tmp_path, learning_rates=RATES, overrides=overrides)
    (trial,) = made.trials
    file = tmp_path / "mine.toml"
    table = suite_lines(algorithm, load_suite("small-shapes-arena", overrides), trial.settings)
    text = (resources.files("rfbench_benchmarks.suites") / "small-shapes-arena.toml").read_text()
    head, _, _ = text.partition("[algorithms")
    file.write_text(f"{head}\n{table}\n")
    ours, theirs = make_plan(load_suite(str(file)), algorithm, 0), trial.job.plan
    assert ours.algorithm == theirs.algorithm
    assert ours.settings.model_dump(exclude={"algorithm"}) == theirs.settings.model_dump(exclude={"algorithm"}) | {
        "config": ours.settings.config
    }


def test_what_an_override_gives_is_not_searched(tmp_path: Path) -> None:
    overrides = ["algorithms.nft.config.beta=0.9"]
    made = make_search("small-shapes-arena", "nft", 2, tmp_path, learning_rates=RATES, overrides=overrides)
    assert list(made.ranges) == ["optimizer.learning_rate", "config.updates_per_epoch"]
    assert {trial.job.plan.algorithm.config.beta for trial in made.trials} == {0.9}
