"""Settings that cannot work are refused while the run is planned: before a weight loads, or a folder is made."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from rfbench.errors import InputError
from rfbench.planning.plan import make_outline, make_plan
from rfbench.plugins import registry
from rfbench.suite.loading import load_suite
from rfbench.suite.settings import Settings
from rfbench.suite.suite import Suite
from tests import tiny
from tests.test_cli import rfbench

GAUSSIAN = ["epochs=2", "evaluation.every=2", "budget.reward_queries_per_epoch=8"]


@pytest.fixture(autouse=True)
def _no_weights_load(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gaussian", "shapes", "stable-diffusion"):
        monkeypatch.setattr(registry.find("models", name), "__init__", lambda *_: pytest.fail("a model was loaded"))


@pytest.mark.parametrize(
    ("label", "overrides", "message"),
    [
        ("ddpo", ["images_per_prompt=1", "config.advantage=group"], "'group', but images_per_prompt is 1"),
        ("grpo", ["images_per_prompt=1"], "'group-mean', but images_per_prompt is 1: one reward has no spread"),
        ("ddpo", ["images_per_prompt=1", "config.advantage=leave-one-out"], "'leave-one-out', but images_per_prompt"),
        ("rwr", ["images_per_prompt=1", "config.over=prompt"], "'prompt', so 1 image competes with none"),
        ("rwr", ["images_per_prompt=4", "config.weights=sparse", "config.percentile=0"], "every weight would be 1"),
        ("rwr", ["images_per_prompt=1", "config.over=round", "budget=1"], "'round', so 1 image competes with none"),
        ("prdp", ["images_per_prompt=1"], "needs at least 2 images per prompt, but images_per_prompt is 1"),
        ("ddpo", ["images_per_prompt=1", "config.advantage=batch", "budget=1"], "'batch', but an epoch has 1 image"),
        ("ddpo", ["images_per_prompt=4", "config.updates_per_epoch=200"], "is 200, but an epoch has 8 images"),
        ("ddpo", ["images_per_prompt=4", "config.updates_per_epoch=9"], "is 9, but an epoch has 8 images"),
        ("ddpo", ["images_per_prompt=4", "config.min_count=33"], "is 33, but config.buffer_size 32: no buffer"),
        ("ddpo", ["images_per_prompt=4", "config.buffer_size=1"], "buffer_size: .* greater than or equal to 2"),
    ],
)
def test_runs_that_cannot_learn(label: str, overrides: list[str], message: str) -> None:
    settings = [
        f"budget.reward_queries_per_epoch={o.removeprefix('budget=')}" if o.startswith("budget=")
        else f"algorithms.{label}.{o}"
        for o in overrides
    ]  # fmt: skip
    suite = load_suite("optimum-gaussian", [*GAUSSIAN, *settings])
    with pytest.raises(InputError, match=message):
        make_plan(suite, label, seed=0)


def test_as_many_updates_as_images_and_a_group_of_two_can_learn() -> None:
    settings = ["images_per_prompt=2", "config.advantage=group", "config.updates_per_epoch=8"]
    suite = load_suite("optimum-gaussian", [*GAUSSIAN, *(f"algorithms.ddpo.{s}" for s in settings)])
    assert make_plan(suite, "ddpo", seed=0).prompts_per_epoch == 4


PLUGIN = """
from rfbench.core import Algorithm, Cost
from rfbench.errors import InputError

class Halves(Algorithm):
    "Compares the better half of each group with the other."

    @classmethod
    def check(cls, config, num_prompts, images_per_prompt, num_steps):
        if images_per_prompt % 2:
            raise InputError(f"images_per_prompt is {images_per_prompt}, which has no halves; use an even number")
        if num_steps != 10:
            raise InputError(f"{num_steps} steps")

    def cost(self, num_prompts, images_per_prompt, num_steps):
        return Cost(0, 0)

    def update(self, rollout, learner):
        raise AssertionError("it must not be run")
"""


def test_a_plugin_refuses_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "halves.py"
    file.write_text(PLUGIN)
    sets = [part for text in (*GAUSSIAN, "algorithms.halves.images_per_prompt=1") for part in ("--set", text)]
    arguments = ["--suite", "optimum-gaussian", "--plugin", file, "--out", tmp_path / "out"]
    assert rfbench("run", "halves", *arguments, *sets) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert "halves cannot learn with these settings of algorithms.halves: images_per_prompt is 1, which has" in printed
    assert not (tmp_path / "out").exists()
    suite = load_suite("optimum-gaussian", [*GAUSSIAN, "algorithms.halves.images_per_prompt=2"])
    assert make_plan(suite, "halves", seed=0).objective_steps == 10


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["eta=0.5"], "eta is 0.5, but ddpm is ancestral sampling"),
        (["kind=ddim", "eta=0"], "eta is 0, which leaves no step with noise"),
        (["kind=ddim", "eta=1.5"], "sampler.eta: .* less than or equal to 1"),
        (["num_steps=10", "skip_last_steps=10"], "skip_last_steps is 10 and num_steps 10: no denoising step is left"),
        (["num_steps=1", "skip_last_steps=0"], "no denoising step is left for the objective"),
        (["num_steps=1001"], "sampler.num_steps is 1001, but the model has 1000 training timesteps"),
    ],
)
def test_samplers_without_a_chain(overrides: list[str], message: str, tmp_path: Path) -> None:
    settings = [f"sampler.{override}" for override in overrides]
    with pytest.raises(InputError, match=message):
        make_plan(load_suite("tiny-shapes", settings), "prdp", seed=0)
    arguments = ["run", "prdp", "--suite", "tiny-shapes", "--out", tmp_path / "out"]
    assert rfbench(*arguments, *(part for text in settings for part in ("--set", text))) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("optimum-gaussian", ["sampler.guidance_scale=2"], "guidance_scale is 2, but the gaussian world has no uncond"),
        ("optimum-gaussian", ["sampler.kind=ddpm"], "counts every denoising step, but 9 of 10 carry a gradient"),
        ("optimum-gaussian", ["sampler.skip_last_steps=2"], "counts every denoising step, but 8 of 10"),
        ("optimum-gaussian", ["reward.name=shapes-gold"], "reward: shapes-gold scores pixels, but .* gaussian makes p"),
        ("optimum-gaussian", ['evaluation.held_out_rewards=[{name="jpeg-compressibility"}]'],
         "evaluation.held_out_rewards.0: jpeg-compressibility scores pixels, but the model gaussian makes points"),
        ("tiny-shapes", ["reward.name=gaussian-linear"], "scores points, but the model shapes makes pixels"),
        ("optimum-gaussian", ["finetune.method=lora"], "'lora', but the gaussian world's denoiser takes no adapters"),
        ("tiny-shapes", ["finetune.method=lora", 'finetune.target_modules=["no_such"]'],
         "finetune.target_modules names 'no_such', which no module of UNet2DConditionModel is called"),
        ("tiny-shapes", ["finetune.method=lora", 'finetune.target_modules=["attentions"]'],
         "names 'attentions', which is a ModuleList; a LoRA is put on linear"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(name: str, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(load_suite(name, overrides), "prdp", seed=0)


def test_gradient_checkpointing_needs_a_denoiser_that_has_it() -> None:
    suite = load_suite("optimum-gaussian", ["compute.gradient_checkpointing=true"])
    with pytest.raises(InputError, match="gradient_checkpointing is on, but the gaussian"):
        make_plan(suite, "prdp", seed=0)
    assert make_plan(load_suite("tiny-shapes", ["compute.gradient_checkpointing=true"]), "prdp", seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation": {"held_out_rewards": [{"name": "shapes-gold"}]}},
         r"held_out_rewards.0 \(shapes-gold\) does not take the prompts of evaluation.sets.seen: .*use prompts of the"),
        ({"evaluation": {"held_out_rewards": [{"name": "weighted-sum", "terms": [
            {"name": "jpeg-compressibility", "weight": 1}, {"name": "shapes-gold", "weight": 1}]}]}},
         r"held_out_rewards.0 \(shapes-gold\) does not take the prompts of evaluation.sets.seen"),
        ({"evaluation": {"held_out_rewards": [{"name": "shapes-gold-all"}]}}, "prompts of the set 'shapes', or leave"),
        ({"reward": {"name": "shapes-gold"}}, r"reward \(shapes-gold\) does not take the prompts of prompts.train"),
    ],
)  # fmt: skip
def test_rewards_that_do_not_take_the_prompts(suite: Suite, changes: dict[str, Any], message: str) -> None:
    data = suite.model_dump()
    data["evaluation"] |= changes.pop("evaluation", {})
    with pytest.raises(InputError, match=message):
        make_plan(Suite.model_validate(data | changes), "prdp", seed=0)


def test_models_that_do_not_take_the_prompts(prompt_file: Path) -> None:
    files = f'prompts.train={{name="file", path="{prompt_file}"}}'
    small = ["algorithms.prdp.images_per_prompt=2", "evaluation.sets.seen.num_prompts=4"]
    suite = load_suite("optimum-gaussian", [files, *GAUSSIAN, *small])
    with pytest.raises(InputError, match=r"model \(gaussian\) does not take .*: the gaussian world has no prompt 'a"):
        make_plan(suite, "prdp", seed=0)


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_objective_steps_are_those_of_the_chain(
    pipeline: Path, prompt_file: Path, tmp_path: Path, set_alpha_to_one: bool
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in pipeline.iterdir():
        (copy / part.name).symlink_to(part)
    scheduler = pipeline / "scheduler" / "scheduler_config.json"
    text = scheduler.read_text().replace(
        '"set_alpha_to_one": false', f'"set_alpha_to_one": {str(set_alpha_to_one).lower()}'
    )
    (copy / "scheduler").unlink()
    (copy / "scheduler").mkdir()
    (copy / "scheduler" / scheduler.name).write_text(text)
    suite = tiny.make_suite(copy, prompt_file, sampler={"kind": "ddim", "num_steps": 5})
    assert make_outline(suite, "prdp", seed=0).objective_steps == (4 if set_alpha_to_one else 5)


class AnyConfig(Settings):
    """A plugin's."""

    rate: float = 1.0
    pair: tuple[float, float] = (0.0, 1.0)
    count: int = 3
    either: float | None = None
    limit: float = Field(math.inf, allow_inf_nan=True)


@pytest.mark.parametrize("value", [{"rate": math.inf}, {"rate": math.nan}, {"pair": (0.0, -math.inf)},
                                   {"either": math.nan}, {"count": 10**30}, {"count": -(2**63) - 1}])  # fmt: skip
def test_the_numbers_of_every_config_are_finite(value: dict[str, Any]) -> None:
    (field,) = value
    with pytest.raises(InputError, match=field):
        registry.configure("algorithms", "any", AnyConfig, value)


def test_a_field_may_say_that_infinity_has_a_meaning() -> None:
    assert AnyConfig(limit=math.inf).limit == math.inf
    assert AnyConfig(count=2**63 - 1).count == 2**63 - 1


@pytest.mark.parametrize(
    "override",
    [
        "algorithms.prdp.config.beta=inf",
        "algorithms.ddpo.config.clip_range=nan",
        "algorithms.prdp.config.clip_range=inf",
        "algorithms.prdp.optimizer.learning_rate=inf",
        "algorithms.prdp.optimizer.max_grad_norm=inf",
        "algorithms.prdp.optimizer.weight_decay=inf",
        "algorithms.prdp.optimizer.betas=[1.0, 0.9]",
        "algorithms.prdp.optimizer.betas=[0.9, 2]",
        "algorithms.prdp.optimizer.betas=[-0.1, 0.9]",
        "reward_noise=inf",
        "model.beta=inf",
        "sampler.eta=1e300",
        "sampler.guidance_scale=inf",
        "compute.chunk_size=1e30",
        "epochs=1000000000000000000000",
        "evaluation.seed=-100000000000000000000",
    ],
)
def test_numbers_that_are_none(override: str, tmp_path: Path) -> None:
    label = "ddpo" if "ddpo" in override else "prdp"
    arguments = ["run", label, "--suite", "optimum-gaussian", "--out", tmp_path / "out", "--set", override]
    assert rfbench(*arguments) == 2
    assert not (tmp_path / "out").exists()
