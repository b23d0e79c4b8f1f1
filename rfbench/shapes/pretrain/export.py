"""Stage `export`: the chosen base and the reward in float16 with checksums, as they ship."""

from __future__ import annotations

from pathlib import Path

import torch

from rfbench.shapes.pretrain.sampling import Base
from rfbench.shapes.reward import ShapesReward
from rfbench.shapes.weights import write_checksums


def export(checkpoint: Path, reward_folder: Path, weights: Path) -> None:
    """Write `pipeline` and `reward` below `weights`, each with its SHA256SUMS."""
    Base.load(checkpoint).save(weights / "pipeline", torch.float16)
    reward = ShapesReward.load(reward_folder)
    reward.clip.half()
    reward.save(weights / "reward")
    for name in ("pipeline", "reward"):
        write_checksums(weights / name)
