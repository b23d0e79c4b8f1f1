"""Suites and plans: what is wrong is said before anything loads."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from rfbench.core.prompts import PromptSet, epoch_prompts
from rfbench.errors import InputError
from rfbench.planning.plan import make_outline, make_plan
from rfbench.plugins import registry
from rfbench.suite.loading import load_suite, suite_names
from rfbench.suite.suite import Suite
from tests import tiny


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_runs_every_algorithm_that_it_lists(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite.description
    for label in suite.algorithms:
        plan = make_outline(suite, label, seed=0)
        images = plan.prompts_per_epoch * plan.settings.images_per_prompt
        assert images == suite.budget.reward_queries_per_epoch


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=3", r"unknown key epoch \(did you mean 'epochs'\?\)"),
        ("sampler.guidance=3", r"unknown key sampler.guidance \(did you mean 'guidance_scale'\?\)"),
        (
            'evaluation.held_out_rewards=[{name="shapes-preference"}, {name="shapes-gold"}]',
            r"'shapes-preference', which is the training reward.*held_out_rewards=\[\{name=\"shapes-gold\"\}\]",
        ),
        (
            'evaluation.held_out_rewards=[{name="shapes-gold"}, {name="shapes-gold"}]',
            r"names 'shapes-gold' twice.*held_out_rewards=\[\{name=\"shapes-gold\"\}\]",
        ),
        ("reward.name=shapes-gold", r"'shapes-gold', which is the training reward"),
        ("sampler.num_steps=0", r"sampler.num_steps: Input should be greater than or equal to 1 \(it is 0\)"),
        (
            "algorithms.prdp.optimiser.learning_rate=1",
            r"unknown key algorithms.prdp.optimiser \(did you mean 'optimizer'",
        ),
        ("evaluation.sets.seen.prompts=trian", r"'trian', which is not among \[prompts\] \(did you mean 'train'\?\)"),
        (
            "paper.suite=tiny",
            r"paper.suite: Input should be 'small' or 'large' \(it is 'tiny'\)\n  paper.reward is missing",
        ),
        ("epochs", "--set epochs: expected key=value"),
        ("epochs.x=1", "--set epochs.x=1: 'epochs' is a value, not a table"),
    ],
)
def test_bad_overrides(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_suite("tiny-shapes", [override])


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("optimizer.learning_rate=1e-3", "did you mean algorithms.prdp.optimizer.learning_rate, algorithms.ddpo.optim"),
        ("learning_rate=1e-3", "did you mean algorithms.prdp.optimizer.learning_rate, algorithms.ddpo.optim"),
        ("beta=1.0", "did you mean algorithms.prdp.config.beta"),
        ("num_steps=3", "did you mean sampler.num_steps?"),
        ("seen.num_prompts=3", "did you mean evaluation.sets.seen.num_prompts?"),
        ("trackers.wandb=offline", "did you mean compute.trackers.wandb?"),
    ],
)
def test_a_key_without_its_table_is_told_its_full_name(override: str, meant: str) -> None:
    with pytest.raises(InputError) as caught:
        load_suite("tiny-shapes", [override])
    assert f"\n  {meant}" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "table"),
    [
        ("prompts.train.name=animals", 'prompts.train={name="animals"}'),
        ("reward={name='jpeg-compressibility', strength=3}", 'reward={name="jpeg-compressibility"}'),
    ],
)
def test_keys_that_another_plugin_left_in_a_table(override: str, table: str) -> None:
    with pytest.raises(InputError) as caught:
        make_outline(load_suite("tiny-shapes", [override]), "prdp", seed=0)
    assert "unknown key" in str(caught.value)
    assert f"where the table was another plugin's, set it whole: --set '{table}'" in str(caught.value)


def test_another_package_brings_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found through its entry point; one that is broken is said where a name is not found, and stops nothing else."""
    for package, target in (("theirs", "theirs_suites"), ("broken", "no_such_package")):
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[rfbench.suites]\n{package} = {target}\n")
    suites = tmp_path / "theirs_suites"
    suites.mkdir()
    (suites / "__init__.py").touch()
    own = resources.files("rfbench_benchmarks.suites") / "tiny-shapes.toml"
    (suites / "their-suite.toml").write_text(own.read_text(encoding="utf-8").replace("tiny-shapes", "their-suite"))
    (suites / "large-shapes.toml").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert "their-suite" in suite_names()
    assert load_suite("their-suite").name == "their-suite"
    assert load_suite("tiny-shapes").name == "tiny-shapes"
    with pytest.raises(InputError, match=r"(rfbench and theirs|theirs and rfbench) both bring a suite 'large-shapes'"):
        load_suite("large-shapes")
    with pytest.raises(InputError, match=r"unknown suite 'their-suit'.*\n  the suites of broken \(no_such_package\)"):
        load_suite("their-suit")


def test_a_table_that_is_like_another_changes_only_what_it_says() -> None:
    hot = ["algorithms.hot.like=prdp", "algorithms.hot.config.beta=3.0"]
    suite = load_suite("small-shapes", [*hot, "algorithms.hotter.like=hot", "algorithms.prdp.images_per_prompt=4"])
    prdp, hotter = suite.settings_for("prdp"), suite.settings_for("hotter")
    assert hotter.algorithm == "prdp"
    assert hotter.images_per_prompt == prdp.images_per_prompt == 4
    assert hotter.optimizer == prdp.optimizer
    assert hotter.config == prdp.config | {"beta": 3.0}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithms.hot.like=prpd"], r"algorithms.hot.like is 'prpd' \(did you mean 'prdp'\?\)"),
        (["algorithms.hot.like=hot"], "algorithms.hot.like is 'hot'"),
        (["algorithms.hot.like=cold", "algorithms.cold.like=hot"], "like is 'hot'"),
    ],
)
def test_a_table_must_be_like_one_that_is_there(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_suite("small-shapes", overrides)


def test_unknown_suite() -> None:
    with pytest.raises(InputError, match=r"unknown suite 'tiny-shape' \(did you mean 'tiny-shapes'"):
        load_suite("tiny-shape")
    with pytest.raises(InputError, match=r"there is no suite file missing\.toml"):
        load_suite("missing.toml")


def test_broken_toml(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("epochs = = 3")
    with pytest.raises(InputError, match="is not valid TOML"):
        load_suite(str(path))


@pytest.mark.parametrize(
    ("label", "changes", "message"),
    [
        ("prpd", {}, r"unknown algorithm 'prpd' \(did you mean 'prdp'"),
        ("prdp-twise", {"algorithms": {"prdp-twice": {"like": "prdp"}, "prdp": {"images_per_prompt": 2}}},
         r"'prdp-twise' \(did you mean 'prdp-twice'.*; tiny has prdp-twice, prdp; installed: awm, "),
        ("prdp", {"model": {"name": "shape"}}, r"unknown model 'shape' \(did you mean 'shapes'"),
        ("prdp", {"reward": {"name": "jpeg-incompressibility", "qualty": 3}},
         r"settings of the reward 'jpeg-incompressibility':\n  unknown key qualty \(did you mean 'quality'"),
        ("prdp", {"algorithms": {"prdp": {"config": {"beta": -1}}}},
         r"beta: Input should be greater than 0 \(it is -1\)"),
        ("prdp", {"algorithms": {"prdp": {"images_per_prompt": 1}}},
         "prdp needs at least 2 images per prompt, but images_per_prompt is 1; use .*images_per_prompt=2 or more"),
        ("prdp", {"algorithms": {"prdp": {"images_per_prompt": 5}}},
         "images_per_prompt 5 does not divide the budget of 12 reward queries per epoch; .* 1, 2, 3, 4, 6, 12"),
        ("ddpo", {"algorithms": {"ddpo": {"images_per_prompt": 1}}},
         "an epoch needs 12 distinct prompts, but prompts.train has 6"),
        ("prdp", {"evaluation": {"sets": {"new": {"prompts": "train", "seen": False, "num_prompts": 2,
                                                  "images_per_prompt": 2}}}},
         "evaluation.sets.new is said to be unseen, but 2 of its 2 prompts are training prompts"),
        ("prdp", {"evaluation": {"sets": {"seen": {"prompts": "train", "seen": True, "num_prompts": 9,
                                                   "images_per_prompt": 2}}}},
         "num_prompts is 9, but its prompt set has 6"),
    ],
)  # fmt: skip
def test_impossible_runs_are_refused_before_anything_loads(
    pipeline: Path, prompt_file: Path, label: str, changes: dict[str, Any], message: str
) -> None:
    suite = tiny.make_suite(pipeline, prompt_file, **changes)
    with pytest.raises(InputError, match=message):
        make_plan(suite, label, seed=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no prompt"), (b" \n\n", "holds no prompt"), (b"a \xff cat", "not UTF-8"), (None, "cannot be read")],
)
def test_prompt_files_that_cannot_be_used(pipeline: Path, tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        make_plan(tiny.make_suite(pipeline, path), "prdp", seed=0)


class Numbers(PromptSet):
    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> str:
        return str(index)


def test_epoch_prompts_are_distinct_and_new_until_the_pass_ends() -> None:
    first_pass = [prompt for epoch in range(4) for prompt in epoch_prompts(Numbers(45), 11, epoch, seed=3)]
    assert len(set(first_pass)) == 44
    assert epoch_prompts(Numbers(45), 11, 4, seed=3) != epoch_prompts(Numbers(45), 11, 0, seed=3)
    assert epoch_prompts(Numbers(45), 11, 2, seed=3) == epoch_prompts(Numbers(45), 11, 2, seed=3)
    assert epoch_prompts(Numbers(45), 11, 0, seed=3) != epoch_prompts(Numbers(45), 11, 0, seed=4)


def test_every_registered_plugin_can_be_imported_and_says_what_it_is() -> None:
    for kind in registry.KINDS:
        for name in registry.names(kind):
            assert registry.find(kind, name).__doc__, f"{kind} {name} has no docstring"


def test_unlisted_algorithms_run_with_defaults(pipeline: Path, prompt_file: Path) -> None:
    suite: Suite = tiny.make_suite(pipeline, prompt_file, algorithms={})
    assert suite.settings_for("prdp").images_per_prompt == 8
    with pytest.raises(InputError, match="images_per_prompt 8 does not divide the budget of 12"):
        make_plan(suite, "prdp", seed=0)
    wider = Suite.model_validate(suite.model_dump() | {"budget": {"reward_queries_per_epoch": 16}})
    assert make_plan(wider, "prdp", seed=0).prompts_per_epoch == 2
