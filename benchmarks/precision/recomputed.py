"""PRDP as an implementation with two programs has it: the log-probs of the first update are computed again.

    rfbench run prdp-recomputed --suite large-shapes --plugin benchmarks/precision/recomputed.py \\
        --set algorithms.prdp-recomputed.images_per_prompt=8

PRDP takes the log-probs of its first update from the sampling pass, so with K = 1 every l_t is its l_t(old), bit for
bit, and no clip binds. Many implementations sample with one program and train with another. Here the second one
differs from the sampler's in what no result should depend on: it calls the network with half as many rows at once,
and its attention is computed step by step instead of by a fused kernel. What the clip then sees of the first update is
rounding alone.

The rows alone would do on most GPUs; on a CPU the kernels of bf16 give a row the same bits in every batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rfbench.core.algorithm import Cost
from rfbench.core.conditioning import select
from rfbench.core.learner import Chunk, Learner
from rfbench.core.rollout import Rollout
from rfbench_algorithms.prdp import PRDP


class PrdpRecomputed(PRDP):
    """PRDP whose first update computes its log-probs again, by another program than the sampler's."""

    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        pairs, updates = num_prompts * images_per_prompt * num_steps, self.config.updates_per_epoch
        return Cost(forwards=pairs * 2 * updates, backwards=pairs * updates)

    @torch.no_grad()
    def start_log_probs(self, rollout: Rollout, learner: Learner) -> Tensor:
        """``(images, steps)``; how far they are from the sampler's is the epoch's ``start_error``."""
        values = torch.zeros_like(rollout.log_probs)
        with sdpa_kernel(SDPBackend.MATH):
            for chunk in learner.chunks(rollout):
                for piece in pieces(chunk, other_rows(chunk, rollout)):
                    values[piece.index] = learner.log_probs(piece).to(values)
        return learner.sum(values)


def other_rows(chunk: Chunk, rollout: Rollout) -> int:
    """Half the rows of the sampler's calls: those are of one step, so of no more rows than there are images."""
    return max(1, min(len(chunk.images), len(rollout.local)) // 2)


def pieces(chunk: Chunk, rows: int) -> Iterator[Chunk]:
    """The pairs of a chunk in chunks of ``rows``; the last may have fewer."""
    for positions in torch.arange(len(chunk.images)).split(rows):
        there = positions.to(chunk.steps.device)
        yield replace(
            chunk,
            images=chunk.images[positions],
            columns=chunk.columns[positions],
            steps=chunk.steps[there],
            latents=chunk.latents[there],
            next_latents=chunk.next_latents[there],
            log_probs_old=chunk.log_probs_old[there],
            condition=select(chunk.condition, there),
        )
