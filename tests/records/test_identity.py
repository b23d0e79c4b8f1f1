"""What makes two runs the same: one hash for one experiment, however it is spelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfbench.core.algorithm import Algorithm
from rfbench.planning.plan import Outline, make_outline
from rfbench.plugins import registry
from rfbench.records.identity import differences, level_of, suite_hash, variant_hash
from rfbench.suite.loading import load_suite, suite_names
from rfbench_algorithms.ddpo import DDPO, DDPOConfig


def outline(suite: str, *overrides: str, variant: str = "prdp") -> Outline:
    return make_outline(load_suite(suite, overrides), variant, seed=0)


def hashes(suite: str, *overrides: str, variant: str = "prdp") -> tuple[str, str]:
    planned = outline(suite, *overrides, variant=variant).planned(processes=1)
    return suite_hash(planned.suite, planned.inputs), variant_hash(planned.suite, variant)


@pytest.mark.parametrize(
    ("suite", "spellings"),
    [
        ("optimum-gaussian", (["model.beta=4"], ["model.beta=4.0"], [])),
        ("large-hpsv2", (["reward.version=v2.0"], ["reward.legacy_resize=false"], [])),
        ("large-hpsv2", (["prompts.train.split=train"], [])),
        ("tiny-shapes", (["algorithms.prdp.config.beta=10"], ["algorithms.prdp.config.beta=10.0"])),
        ("tiny-shapes", (["algorithms.ddpo.config.buffer_size=32"], ["algorithms.ddpo.algorithm=ddpo"], [])),
    ],
)
def test_one_experiment_has_one_hash(suite: str, spellings: tuple[list[str], ...]) -> None:
    variants = {variant for spelled in spellings for text in spelled for variant in ("prdp", "ddpo") if variant in text}
    for variant in variants or {"prdp"}:
        assert len({hashes(suite, *spelled, variant=variant) for spelled in spellings}) == 1


@pytest.mark.parametrize(
    "override",
    [
        "epochs=7",
        "sampler.guidance_scale=2.0",
        "compute.precision=bf16",
        "evaluation.seed=3",
        "evaluation.every=2",
        "prompts.train.split=train",
        "reward_noise=1.0",
    ],
)
def test_what_can_change_a_curve_changes_the_suites_hash(override: str) -> None:
    assert hashes("tiny-shapes", override)[0] != hashes("tiny-shapes")[0]


@pytest.mark.parametrize(
    "override",
    [
        "compute.chunk_size=7",
        "compute.trackers.tensorboard=true",
        "description=x",
        "paper={suite='small', reward='hpsv2'}",
        "evaluation.grid_prompts=2",
        "evaluation.held_out_rewards=[]",
        "evaluation.sets.seen.final={num_prompts=50, images_per_prompt=2}",
    ],
)
def test_what_cannot_change_a_curve_leaves_both_hashes(override: str) -> None:
    assert hashes("tiny-shapes", override) == hashes("tiny-shapes")


def test_an_algorithms_settings_have_a_hash_of_their_own() -> None:
    changed = hashes("tiny-shapes", "algorithms.prdp.config.beta=1.0")
    assert changed[0] == hashes("tiny-shapes")[0]
    assert changed[1] != hashes("tiny-shapes")[1]


def test_a_changed_default_of_a_plugin_is_another_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = outline("tiny-shapes", variant="ddpo").planned(processes=1)

    class LaterConfig(DDPOConfig):
        advantage_clip: float = 3.0

    class Later(DDPO):
        Config = LaterConfig

    find = registry.find
    monkeypatch.setattr(registry, "find", lambda kind, name: Later if name == "ddpo" else find(kind, name))
    after = outline("tiny-shapes", variant="ddpo").planned(processes=1)
    assert variant_hash(after.suite, "ddpo") != variant_hash(before.suite, "ddpo")
    found = [str(difference) for difference in differences(before, after, "pool")]
    assert "algorithms.ddpo.config.advantage_clip: 5.0 against 3.0" in found
    assert differences(before, after, "compare") == []


def test_a_field_that_only_resuming_needs_does_not_keep_seeds_apart() -> None:
    first = outline("tiny-shapes").planned(processes=1)
    second = outline("tiny-shapes", "evaluation.held_out_rewards=[]", "evaluation.grid_images=2").planned(processes=2)
    assert differences(first, second, "pool") == []
    fields = [difference.field for difference in differences(first, second, "resume")]
    assert "evaluation.grid_images" in fields
    assert "processes" in fields
    assert any(field.startswith("evaluation.held_out_rewards") for field in fields)


def test_the_content_of_a_prompt_file_counts_and_not_its_place(tmp_path: Path) -> None:
    for folder, content in (("here", "a cat\na dog\n"), ("there", "a cat\na dog\n"), ("changed", "a cat\na cow\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "prompts.txt").write_text(content)

    def planned(folder: str) -> Outline:
        path = tmp_path / folder / "prompts.txt"
        return outline("tiny-shapes", f"prompts.train={{name='file', path='{path}'}}")

    here, there, changed = (planned(folder).planned(processes=1) for folder in ("here", "there", "changed"))
    assert differences(here, there, "resume") == []
    assert suite_hash(here.suite, here.inputs) == suite_hash(there.suite, there.inputs)
    (difference,) = differences(here, changed, "compare")
    assert difference.field == "the content of prompts.train.path, sha256"


def test_the_code_of_a_plugin_file_counts(tmp_path: Path) -> None:
    source = (
        "from rfbench.core import Reward\n"
        "class Redness(Reward):\n"
        "    unit, version = 'share', '1'\n"
        "    def __init__(self, config, device): pass\n"
        "    def __call__(self, images, prompts): return images[:, 0].float().mean((1, 2))\n"
    )
    found = []
    for content in (source, source + "# changed\n"):
        file = tmp_path / "mine.py"
        file.write_text(content)
        for known in registry._registered.values():
            known.clear()
        registry.add_file(file)
        found.append(outline("tiny-shapes", "reward.name=redness").planned(processes=1))
    (difference,) = differences(*found, "pool")
    assert difference.field == "the code of reward, mine.py, sha256"


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("epochs", "experiment"),
        ("evaluation.sets.seen.num_prompts", "experiment"),
        ("evaluation.sets.seen.final.num_prompts", "free"),
        ("evaluation.held_out_rewards.0.name", "resume"),
        ("compute.trackers.wandb", "free"),
        ("compute.precision", "experiment"),
        ("model.path", "experiment"),
    ],
)
def test_levels_are_those_declared_beside_the_fields(name: str, level: str) -> None:
    assert level_of(name) == level


@pytest.mark.parametrize("name", suite_names())
def test_the_resolved_suite_is_a_suite_again(name: str) -> None:
    """What is recorded can be run: it validates, and resolves to itself."""
    suite = load_suite(name)
    variant = next(iter(suite.algorithms), "prdp")
    first = make_outline(suite, variant, seed=0)
    again = make_outline(type(suite).model_validate(first.resolved()), variant, seed=0)
    assert again.resolved() == first.resolved()
    config = first.resolved()["algorithms"][variant]["config"]
    cls: type[Algorithm] = registry.find("algorithms", first.algorithm.name)
    assert config.keys() == cls.Config.model_fields.keys()
