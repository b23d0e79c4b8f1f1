"""A tiny Stable Diffusion pipeline folder with random weights, in the published format, and suites on it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from rfbench.core.processes import Processes
from rfbench.planning.plan import Plan, make_plan
from rfbench.running import trainer
from rfbench.running.assembly import Run
from rfbench.suite.suite import Suite

ALGORITHMS = ("prdp", "ddpo", "dpok", "rwr")
SUITE_FILE = """
name = "mine"
version = 1
epochs = 2
model = {{ name = "stable-diffusion", path = "{pipeline}" }}
sampler = {{ num_steps = 4, skip_last_steps = 1, guidance_scale = 2.0 }}
reward = {{ name = "jpeg-incompressibility" }}
prompts = {{ train = {{ name = "file", path = "{prompts}" }} }}
budget = {{ reward_queries_per_epoch = 8 }}
compute = {{ device = "cpu" }}
[evaluation.sets.seen]
prompts = "train"
seen = true
num_prompts = 3
images_per_prompt = 2
"""
UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (4, 8),
    "norm_num_groups": 2,
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),  # attention is in the middle alone
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}
CROSS_ATTENTION = {  # as the published ones have it too, where it matters
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
PROMPTS = ["a cat", "a dog", "a bat", "an ant", "a cow", "a hen"]


def make_pipeline(folder: Path, prediction_type: str = "epsilon", blocks: dict[str, Any] | None = None) -> Path:
    """Saves an 8x8-latent, 16x16-pixel pipeline with about 12,000 UNet parameters; returns ``folder``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**UNET | (blocks or {}), cross_attention_dim=16)
        vae = AutoencoderKL(
            block_out_channels=(4, 8),
            norm_num_groups=2,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        )
        characters = [chr(c) for c in range(33, 127)]
        tokens = [*characters, *(c + "</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
        tokenizer = CLIPTokenizer(
            vocab=dict(zip(tokens, itertools.count(), strict=False)),
            merges=[],
            model_max_length=12,
            pad_token="<|endoftext|>",
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokens),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=12,
                bos_token_id=len(tokens) - 2,
                eos_token_id=len(tokens) - 1,
                pad_token_id=len(tokens) - 1,
            )
        )
    scheduler = DDIMScheduler(
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
        prediction_type=prediction_type,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
    )
    StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def make_suite(pipeline: Path, prompts: Path, **changes: Any) -> Suite:
    """A suite of the tiny pipeline and a JPEG reward; ``changes`` replace top-level fields."""
    data: dict[str, Any] = {
        "name": "tiny",
        "version": 1,
        "epochs": 3,
        "model": {"name": "stable-diffusion", "path": str(pipeline)},
        "sampler": {"num_steps": 5, "guidance_scale": 3.0, "skip_last_steps": 1},
        "reward": {"name": "jpeg-incompressibility"},
        "prompts": {"train": {"name": "file", "path": str(prompts)}},
        "budget": {"reward_queries_per_epoch": 12},
        "evaluation": {
            "every": 2,
            "sets": {"seen": {"prompts": "train", "seen": True, "num_prompts": 3, "images_per_prompt": 2}},
            "held_out_rewards": [{"name": "jpeg-compressibility"}],
        },
        "compute": {"chunk_size": 16, "device": "cpu"},
        "algorithms": {
            "prdp": {"images_per_prompt": 4, "config": {"beta": 0.01, "updates_per_epoch": 2}},
            "ddpo": {"images_per_prompt": 2, "config": {"clip_range": 1e-3, "updates_per_epoch": 2}},
            "dpok": {
                "images_per_prompt": 2,
                "config": {"updates_per_epoch": 2, "batch_size": 20, "replay_size": 60, "value_batch_size": 20},
            },
            "rwr": {"images_per_prompt": 2, "config": {"passes": 2}},
        },
    }
    return Suite.model_validate(data | changes)


def write(suite: Suite, path: Path, **changes: Any) -> str:
    """The suite as a file that the command takes."""
    data = suite.model_copy(update=changes).model_dump(mode="json", exclude_none=True)
    path.write_text("\n".join(f"{key} = {_toml(value)}" for key, value in data.items()))
    return str(path)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    return "[" + ", ".join(map(_toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


def make_run(made: Plan) -> Run:
    return trainer.make_run(made, Processes(made.suite.compute))


def plan(suite: Suite, label: str = "prdp", seed: int = 0) -> Plan:
    return make_plan(suite, label, seed)


def record_gradients(run: Run) -> list[torch.Tensor]:
    """A list that each optimiser step of ``run`` first adds its gradients to, parameter by parameter."""
    gradients: list[torch.Tensor] = []
    take_step = run.learner.step

    def record_then_step() -> None:
        gradients.extend(p.grad.clone() for p in run.policy.trainable().values() if p.grad is not None)
        take_step()

    run.learner.step = record_then_step  # type: ignore[method-assign]
    return gradients
