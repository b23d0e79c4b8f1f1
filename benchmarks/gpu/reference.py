"""The loop of kvablack/ddpo-pytorch on the same UNet: its own step and log-prob, from a folder that the user has."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from rfbench.core.policy import Policy

FILE = Path("ddpo_pytorch") / "diffusers_patch" / "ddim_with_logprob.py"
CONFIGS = Path(str(resources.files("rfbench.models") / "sd1"))  # Stable Diffusion 1.x
GUIDANCE, CLIP_RANGE, ADVANTAGE_CLIP = 5.0, 1e-4, 5.0


def load_step(folder: Path) -> Callable[..., Any]:
    """``ddim_step_with_logprob`` of the folder's own file."""
    import diffusers.utils
    from diffusers.utils.torch_utils import randn_tensor

    diffusers.utils.randn_tensor = randn_tensor  # where the file expects it; diffusers has moved it since
    spec = importlib.util.spec_from_file_location("ddim_with_logprob", folder / FILE)
    if spec is None or spec.loader is None or not (folder / FILE).is_file():
        raise SystemExit(f"REFERENCE={folder} has no {FILE}; give a checkout of kvablack/ddpo-pytorch")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    step: Callable[..., Any] = module.ddim_step_with_logprob
    return step


def epoch(folder: Path, policy: Policy, images: int, steps: int, batch: int, lap: Callable[[], object]) -> list[float]:
    """Seconds of sampling and of training, as its train.py goes: batches of images, one denoising step at a time.

    ``lap`` waits for the device.
    """
    step, unet, device = load_step(folder), policy.denoiser, next(policy.denoiser.parameters()).device
    scheduler = DDIMScheduler.from_pretrained(CONFIGS / "scheduler")
    scheduler.set_timesteps(steps, device=device)
    text = policy.encode_prompts([""])["text"]
    optimizer = torch.optim.AdamW(list(policy.trainable().values()), lr=1e-5)

    def noise(latents: Tensor, t: Tensor) -> Tensor:
        rows = 2 * len(latents)
        with policy._autocast(device):
            out = unet(torch.cat([latents] * 2), torch.cat([t] * 2), text.expand(rows, -1, -1), return_dict=False)[0]
        unconditional, conditional = out.float().chunk(2)
        return unconditional + GUIDANCE * (conditional - unconditional)

    lap()
    start, kept = time.perf_counter(), []
    with torch.no_grad():
        for _ in range(images // batch):
            latents = torch.randn(batch, *policy.model.latent_shape, device=device)
            for t in scheduler.timesteps:
                times = t.repeat(batch)
                after, log_prob = step(scheduler, noise(latents, times), times, latents, eta=1.0)
                kept.append((latents, after, times, log_prob))
                latents = after
    lap()
    middle = time.perf_counter()
    advantages = torch.randn(batch, device=device).clamp(-ADVANTAGE_CLIP, ADVANTAGE_CLIP)
    for latents, after, times, old in kept:
        _, log_prob = step(scheduler, noise(latents, times), times, latents, eta=1.0, prev_sample=after)
        ratio = torch.exp(log_prob - old)
        clipped = ratio.clamp(1 - CLIP_RANGE, 1 + CLIP_RANGE)
        torch.maximum(-advantages * ratio, -advantages * clipped).mean().backward()
    torch.nn.utils.clip_grad_norm_(list(policy.trainable().values()), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    lap()
    return [middle - start, time.perf_counter() - middle]
