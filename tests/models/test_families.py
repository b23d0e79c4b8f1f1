"""Each family goes through each algorithm, is saved, and gives in plain diffusers the images that rfbench gives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoPipelineForText2Image, DDIMScheduler, SD3Transformer2DModel, UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor

from rfbench.core import keyed_random
from rfbench.inference import generate
from rfbench.running import weights
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import Sampler, Suite
from tests import tiny
from tests.models import pipelines

pytestmark = pytest.mark.slow

PROMPTS = ["a cat", "an ant"]
STEPS, GUIDANCE = 4, 3.0
METHODS = {"prdp": "full", "ddpo": "lora", "dpok": "full", "rwr": "lora"}
ODE = Sampler(kind="ode", num_steps=STEPS, guidance_scale=GUIDANCE)


class GivenNoise(DDIMScheduler):
    """diffusers' own DDIM scheduler, whose step takes its noise from a list instead of a generator."""

    noises: Iterator[Tensor]

    def step(self, model_output: Tensor, timestep: int, sample: Tensor, eta: float = 0.0, **options: Any) -> Any:
        return super().step(model_output, timestep, sample, eta=eta, variance_noise=next(self.noises), **options)


def small_suite(folder: Path, prompt_file: Path, label: str, method: str, family: str = "xl", **changes: Any) -> Suite:
    suite = tiny.make_suite(folder, prompt_file, model=pipelines.model(family, folder))
    optimizer = {"learning_rate": 0.01 if method == "full" else 0.2}  # so that one epoch shows in the pixels
    settings = suite.algorithms[label].model_dump() | {"optimizer": optimizer, "images_per_prompt": 2}
    data = suite.model_dump() | {
        "epochs": 1,
        "sampler": {
            "kind": "flow-sde" if family == "sd3" else "ddim",
            "num_steps": STEPS,
            "guidance_scale": GUIDANCE,
        },
        "budget": {"reward_queries_per_epoch": 4},
        "finetune": {"method": method, "rank": 2},
        "algorithms": {label: settings},
    }
    return Suite.model_validate(data | changes)


def diffusers_images(base: Path, weights: Path, seed: int) -> Tensor:
    """``(prompts, 3, H, W)`` uint8 by diffusers' own pipeline, loaded as docs/models.md shows, on rfbench's noise."""
    parts: dict[str, Any] = {}
    if (weights / "unet").is_dir():
        parts["unet"] = UNet2DConditionModel.from_pretrained(weights / "unet")
    if (weights / "transformer").is_dir():
        parts["transformer"] = SD3Transformer2DModel.from_pretrained(weights / "transformer")
    is_flow, trained = base.name == "sd3", bool(parts)
    if base.name not in ("xl", "sd3"):
        parts["safety_checker"] = None
    pipe = AutoPipelineForText2Image.from_pretrained(base, **parts)
    if not trained:
        pipe.load_lora_weights(weights)
    pipe.set_progress_bar_config(disable=True)
    if not is_flow:
        pipe.scheduler = GivenNoise.from_config(pipe.scheduler.config)
    options: dict[str, Any] = {"max_sequence_length": 16} if is_flow else {"eta": 1.0}
    images = []
    for number, prompt in enumerate(PROMPTS):
        drawn = keyed_random.normal([(seed, "sample", number, 0)], (STEPS + 1, 4, 8, 8))[0]
        pipe.scheduler.noises = iter(drawn[1:, None])
        picture = pipe(
            prompt,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            latents=drawn[:1],
            output_type="pt",
            **options,
        )
        images.append((picture.images[0] * 255).round().to(torch.uint8))
    return torch.stack(images)


def rfbench_images(run: Path, *, whose: str = "policy") -> Tensor:
    """On the run's sampler, or in Stable Diffusion 3 without noise, as diffusers draws."""
    policy, suite = weights.load_policy(run, torch.device("cpu"))
    policy = policy.drawing_with(ODE) if suite.model.name == "stable-diffusion-3" else policy
    chunks = generate.sample(policy, PROMPTS, images=1, seed=5, chunk_size=8, weights=whose)
    return torch.cat(list(chunks))


@pytest.mark.parametrize("label", METHODS)
@pytest.mark.parametrize("family", ["sd1", "sd2", "xl", "sd3"])
def test_trained_saved_and_equal_in_plain_diffusers(
    folders: dict[str, Path], prompt_file: Path, tmp_path: Path, family: str, label: str
) -> None:
    suite = small_suite(folders[family], prompt_file, label, METHODS[label], family)
    run = train(tiny.plan(suite, label), tmp_path, Quiet())
    ours = rfbench_images(run)
    theirs = diffusers_images(folders[family], run / "weights", seed=5)
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert (ours.int() - rfbench_images(run, whose="reference").int()).abs().max() > 3  # it was trained
    shutil.rmtree(run / "checkpoints")  # then what was exported is enough
    assert torch.equal(rfbench_images(run), ours)


def test_a_lora_is_saved_with_its_rank_and_alpha(folders: dict[str, Path], prompt_file: Path, tmp_path: Path) -> None:
    """Without them diffusers would take an alpha for the rank, and scale the adapter wrongly without a word."""
    run = train(tiny.plan(small_suite(folders["xl"], prompt_file, "rwr", "lora"), "rwr"), tmp_path, Quiet())
    with safe_open(run / "weights" / "pytorch_lora_weights.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
        assert all(name.startswith("unet.") for name in file.keys())  # noqa: SIM118  # safe_open has no __iter__
    assert (metadata["unet.r"], metadata["unet.lora_alpha"]) == (2, 2)


MODULES = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "conv1", "conv2", "ff.net.2")


def test_a_lora_has_the_same_bytes_in_every_process(pipeline: Path, prompt_file: Path, tmp_path: Path) -> None:
    """peft keeps the modules as a set, whose order differs between processes."""
    suite = tiny.make_suite(pipeline, prompt_file, finetune={"method": "lora", "target_modules": MODULES})
    policy = tiny.make_run(tiny.plan(suite)).policy
    policy.model.save_trained(tmp_path, policy.adapter)
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
    assert metadata["unet.target_modules"] == sorted(MODULES)
    assert metadata["unet.target_modules"] != list(MODULES)
