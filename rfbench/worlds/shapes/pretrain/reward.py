"""Stage `reward`: the contrastive CLIP finetuned on preferences, as PickScore is (Kirstain et al. 2023).

For two pictures of one prompt with gold scores g1 and g2, a share q = sigmoid(AGREEMENT * (g1 - g2)) of the annotators
prefers the first (a tie splits them), and the loss is the cross-entropy of softmax(score1, score2) against q.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from rfbench.worlds.shapes.grammar import prompt_at
from rfbench.worlds.shapes.pretrain.clip import contrastive_loss, degrade, groups_of_near_misses
from rfbench.worlds.shapes.pretrain.training import Progress, autocast, cosine_with_warmup
from rfbench.worlds.shapes.proxy import ShapesReward
from rfbench.worlds.shapes.renderer import render

STEPS = 500
BATCH = 24  # prompts, each with a group of pictures
GROUPS = 8  # of near misses, in the contrastive share of a batch
CONTRASTIVE_WEIGHT = 0.2
AGREEMENT = 8.0  # logits of preference per unit of gold; sets the scale of the score
LEARNING_RATE = 5e-4
SEED = 7


def train_reward(clip_folder: Path, preferences: Path, folder: Path) -> None:
    """Preference loss on samples, mixed with the contrastive loss on renders that it started from."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    reward = ShapesReward.load(clip_folder).train()
    data = load_file(preferences)
    optimizer = torch.optim.AdamW(reward.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = cosine_with_warmup(optimizer, STEPS)
    progress = Progress("reward", STEPS, every=50)
    for step in range(1, STEPS + 1):
        rows = torch.randint(len(data["indices"]), (BATCH,), generator=generator)
        prompts = [prompt_at(index) for index in data["indices"][rows].tolist()]
        scenes = groups_of_near_misses(GROUPS, generator)
        renders = degrade(render(scenes, generator).float() / 255, generator)
        with autocast():
            preference = preference_loss(group_scores(reward, data["images"][rows], prompts), data["gold"][rows])
            contrast, _ = contrastive_loss(reward, renders, [scene.prompt for scene in scenes])
        optimizer.zero_grad()
        (preference + CONTRASTIVE_WEIGHT * contrast).backward()
        torch.nn.utils.clip_grad_norm_(reward.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress(step, preference=preference.item(), contrast=contrast.item())
    reward.save(folder)


def group_scores(reward: ShapesReward, images: Tensor, prompts: list[str]) -> Tensor:
    """Scores (prompts, pictures) of each prompt's own group, uint8 (prompts, pictures, 3, 32, 32)."""
    pictures = reward.embed_images(images.flatten(0, 1).float() / 255).float().unflatten(0, images.shape[:2])
    sentences = reward.embed_prompts(prompts).float()
    return reward.clip.logit_scale.exp() * (pictures * sentences[:, None]).sum(-1)


def preference_loss(scores: Tensor, gold: Tensor) -> Tensor:
    """Cross-entropy over all pairs of a group; scores and gold (prompts, pictures)."""
    first, second = torch.triu_indices(scores.shape[1], scores.shape[1], offset=1)
    preferred = torch.sigmoid(AGREEMENT * (gold[:, first] - gold[:, second]))
    return functional.binary_cross_entropy_with_logits(scores[:, first] - scores[:, second], preferred)
