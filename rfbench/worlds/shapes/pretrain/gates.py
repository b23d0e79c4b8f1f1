"""Stages `gates` and `gates-flow`: what the exported weights must reach, measured on their own samples."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from rfbench.worlds.shapes import gold
from rfbench.worlds.shapes.grammar import parse, split
from rfbench.worlds.shapes.pretrain.data import draw_scenes, to_pixels, to_signed
from rfbench.worlds.shapes.pretrain.sampling import Base
from rfbench.worlds.shapes.proxy import ShapesReward
from rfbench.worlds.shapes.renderer import render

IMAGES_PER_PROMPT = 8
NUM_UNSEEN = 90
NUM_RECONSTRUCTIONS = 500
SEED = 8


def measure_gates(base_folder: Path, reward_folder: Path, file: Path) -> bool:
    """Write and print every measurement; whether all gates hold."""
    base = Base.load(base_folder)
    reward = ShapesReward.load(reward_folder)
    unseen = split("unseen")
    prompts = {
        "small": list(split("small")),
        "unseen": [unseen[row] for row in torch.linspace(0, len(unseen) - 1, NUM_UNSEEN).long().tolist()],
    }
    measured = {name: _measure(base, reward, sentences) for name, sentences in prompts.items()}
    measured["vae"] = _reconstruction(base.vae)
    small = measured["small"]
    gates = {
        "gold accuracy of the base is 0.55 to 0.70": 0.55 <= small["gold"] <= 0.70,
        "within-prompt correlation of proxy and gold is at least 0.5": small["correlation"] >= 0.5,
        "best of 8 by proxy raises gold by at least 0.05": small["best_of_8_gold"] - small["gold"] >= 0.05,
        "renders score above the base by more than its spread": small["render_proxy"]
        > small["proxy"] + small["proxy_std_within_prompts"],
    }
    report = json.dumps({"measured": measured, "gates": gates}, indent=2)
    file.write_text(report + "\n", encoding="utf-8")
    print(report, flush=True)
    return all(gates.values())


@torch.no_grad()
def _measure(base: Base, reward: ShapesReward, prompts: list[str]) -> dict[str, float]:
    """Proxy and gold of IMAGES_PER_PROMPT samples of each prompt, and how they agree within a prompt."""
    generator = torch.Generator().manual_seed(SEED)
    repeated = [prompt for prompt in prompts for _ in range(IMAGES_PER_PROMPT)]
    images = base.sample(repeated, generator)
    renders = render([parse(prompt) for prompt in prompts], generator)
    accuracy = gold.attribute_accuracy(images, repeated).unflatten(0, (-1, IMAGES_PER_PROMPT))
    proxy = reward(images.float() / 255, repeated).unflatten(0, (-1, IMAGES_PER_PROMPT))
    best = proxy.argmax(1, keepdim=True)
    return {
        "gold": accuracy.mean().item(),
        "gold_all_correct": gold.all_correct(images, repeated).float().mean().item(),
        "proxy": proxy.mean().item(),
        "proxy_std_within_prompts": proxy.var(1).mean().sqrt().item(),
        "render_gold": gold.attribute_accuracy(renders, prompts).mean().item(),
        "render_proxy": reward(renders.float() / 255, prompts).mean().item(),
        "correlation": _within_prompt_correlation(proxy, accuracy),
        "best_of_8_gold": accuracy.gather(1, best).mean().item(),
        "oracle_best_of_8_gold": accuracy.amax(1).mean().item(),
    }


def _within_prompt_correlation(proxy: Tensor, accuracy: Tensor) -> float:
    """Pearson correlation of the deviations from each prompt's mean; both (prompts, images)."""
    deviations = torch.stack([(values - values.mean(1, keepdim=True)).flatten() for values in (proxy, accuracy)])
    return torch.corrcoef(deviations)[0, 1].item()


@torch.no_grad()
def _reconstruction(vae: AutoencoderKL) -> dict[str, float]:
    """How much of a render survives the VAE: squared error in -1..1, and gold attributes by name."""
    generator = torch.Generator().manual_seed(SEED)
    scenes = draw_scenes(NUM_RECONSTRUCTIONS, generator)
    pictures = to_signed(render(scenes, generator))
    decoded = vae.decode(vae.encode(pictures).latent_dist.mean).sample
    prompts = [scene.prompt for scene in scenes]
    marks = gold.correct_attributes(to_pixels(decoded), prompts)
    names = sorted({name for row in marks for name in row})
    return {
        "mse": (decoded - pictures).square().mean().item(),
        "gold": gold.attribute_accuracy(to_pixels(decoded), prompts).mean().item(),
    } | {name: _share([row[name] for row in marks if name in row]) for name in names}


def _share(marks: list[bool]) -> float:
    return sum(marks) / len(marks)
