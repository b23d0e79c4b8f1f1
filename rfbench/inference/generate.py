"""Images of prompts from what a run trained: ``rfbench sample``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from rfbench.core import keyed_random
from rfbench.core.finite import Batch
from rfbench.core.policy import POLICY, Policy
from rfbench.core.rollout import denoise


@torch.no_grad()
def sample(
    policy: Policy, prompts: Sequence[str], *, images: int, seed: int, chunk_size: int, weights: str = POLICY
) -> Iterator[Tensor]:
    """Chunks ``(m, 3, H, W)`` uint8 of ``images`` of each prompt, prompt by prompt, of the policy or the base model.

    Image ``i`` of prompt ``p`` is drawn from the key ``(seed, "sample", p, i)``: another policy or chunk size, or the
    base model, gets the same noise.
    """
    shape, num_steps, device = policy.model.latent_shape, policy.schedule.num_steps, policy.schedule.sigma.device
    count = len(prompts) * images
    for start in range(0, count, chunk_size):
        places = [divmod(number, images) for number in range(start, min(start + chunk_size, count))]
        chunk = [(seed, "sample", prompt, image) for prompt, image in places]
        batch = Batch("sampling", [prompts[prompt] for prompt, _ in places], start)
        condition = policy.encode_prompts(batch.prompts)
        drawn = keyed_random.normal(chunk, (num_steps + 1, *shape)).to(device)
        clean = drawn[:, 0]
        for transition in denoise(policy, condition, drawn, batch, weights=weights):
            clean = transition.next_latents
        yield policy.model.pictures(policy.decode(clean, batch)).cpu()


def save(pictures: Iterator[Tensor], prompts: Sequence[str], images: int, folder: Path) -> list[Path]:
    """Writes ``<prompt's number>-<its first words>-<image>.png`` for every image; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, picture in enumerate(picture for chunk in pictures for picture in chunk):
        prompt, image = divmod(number, images)
        words = re.sub(r"[^a-z0-9]+", "-", prompts[prompt].lower())[:40].strip("-")
        path = folder / f"{prompt:02d}-{words}-{image:02d}.png"
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)
        paths.append(path)
    return paths
