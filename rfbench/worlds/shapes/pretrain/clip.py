"""Stage `clip`: the reward's contrastive pretraining on renders, in batches full of near misses."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel

from rfbench.worlds.shapes.grammar import Scene
from rfbench.worlds.shapes.pretrain.data import draw_scenes, mutant
from rfbench.worlds.shapes.pretrain.tokenizer import MAX_TOKENS, build_tokenizer
from rfbench.worlds.shapes.pretrain.training import Progress, autocast, cosine_with_warmup
from rfbench.worlds.shapes.proxy import ShapesReward
from rfbench.worlds.shapes.renderer import SIDE, render

STEPS = 1600
GROUPS = 32
MUTANTS = 3  # per group: near misses as captions and as pictures
LEARNING_RATE = 1e-3
TEXT_WIDTH = 96
SEED = 2


def build_reward() -> ShapesReward:
    tokenizer = build_tokenizer()
    text = {
        "vocab_size": len(tokenizer), "hidden_size": TEXT_WIDTH, "intermediate_size": 4 * TEXT_WIDTH,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4,
        "image_size": SIDE, "patch_size": 4,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=96, initializer_factor=1.0)
    return ShapesReward(CLIPModel(config), tokenizer, image_mean=(0.5,) * 3, image_std=(0.5,) * 3)


def train_clip(folder: Path) -> None:
    """Symmetric contrastive loss over groups of a scene and its one-attribute mutants, on one core."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    reward = build_reward()
    optimizer = torch.optim.AdamW(reward.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = cosine_with_warmup(optimizer, STEPS)
    progress = Progress("clip", STEPS, every=50)
    for step in range(1, STEPS + 1):
        scenes = groups_of_near_misses(GROUPS, generator)
        pictures = degrade(render(scenes, generator).float() / 255, generator)
        with autocast():
            loss, accuracy = contrastive_loss(reward, pictures, [scene.prompt for scene in scenes])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reward.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress(step, loss=loss.item(), accuracy=accuracy, scale=reward.clip.logit_scale.exp().item())
    reward.save(folder)


def groups_of_near_misses(groups: int, generator: torch.Generator) -> list[Scene]:
    """Scenes of the `train` split, each followed by MUTANTS that differ from it in one attribute, all distinct."""
    scenes: dict[Scene, None] = {}
    while len(scenes) < groups * (1 + MUTANTS):
        (scene,) = draw_scenes(1, generator)
        group = dict.fromkeys([scene])
        while len(group) < 1 + MUTANTS:
            group[mutant(scene, generator)] = None
        if not scenes.keys() & group.keys():
            scenes |= group
    return list(scenes)


def contrastive_loss(reward: ShapesReward, pictures: Tensor, prompts: list[str]) -> tuple[Tensor, float]:
    """CLIP's loss over all pairs of a batch, and the share of pictures whose own sentence scores highest."""
    logits = reward.clip.logit_scale.exp() * reward.embed_images(pictures) @ reward.embed_prompts(prompts).T
    logits = logits.float()
    own = torch.arange(len(prompts))
    loss = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    return loss, (logits.argmax(1) == own).float().mean().item()


def degrade(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """A third of the pictures (0..1) blurred, a third noisy, so that imperfect samples are not out of distribution."""
    kind = torch.randint(3, (len(pictures), 1, 1, 1), generator=generator)
    strength = torch.rand(len(pictures), 1, 1, 1, generator=generator)
    blurred = functional.avg_pool2d(pictures, 3, stride=1, padding=1, count_include_pad=False)
    noisy = (pictures + 0.15 * strength * torch.randn(pictures.shape, generator=generator)).clamp(0, 1)
    return torch.where(kind == 0, pictures, torch.where(kind == 1, torch.lerp(pictures, blurred, strength), noisy))
