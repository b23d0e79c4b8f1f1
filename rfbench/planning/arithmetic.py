"""How many floating-point operations a run's networks take, counted from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from rfbench.errors import InputError
from rfbench.planning.plan import Outline, Totals
from rfbench.plugins.component import Component

FILLING_FLOPS = 1e11  # of a network call: with fewer a GPU mostly waits for the next kernel, and its rate says nothing


@dataclass(frozen=True)
class Arithmetic:
    """Of the denoiser; decoding, rewards and bookkeeping are not in it.

    Attributes:
        forward_flops: floating-point operations of one latent through the denoiser, a product and a sum being two.
        backward_forwards: forwards that one backward costs on top of its own: two, and one more with checkpointing.
        rows: latents of one network call: a chunk, twice with guidance.
    """

    forward_flops: int
    backward_forwards: int
    rows: int

    def flops(self, totals: Totals) -> float:
        """Of a whole run's network calls."""
        forwards = totals.training_forwards + totals.evaluation_forwards
        return float(self.forward_flops * (forwards + self.backward_forwards * totals.training_backwards))

    @property
    def call_flops(self) -> int:
        """Of one network call, forward."""
        return self.forward_flops * self.rows

    @property
    def fills_a_gpu(self) -> bool:
        """Whether a GPU's published rate says anything of these network calls."""
        return self.call_flops >= FILLING_FLOPS


def arithmetic(outline: Outline) -> Arithmetic | None:
    """Of a run; None where the model's architecture cannot be told without its files."""
    flops = forward_flops(outline.model)
    return None if flops is None else arithmetic_of(outline, flops)


def arithmetic_of(outline: Outline, flops: int) -> Arithmetic:
    """Of a run whose model is counted already: ``flops`` are its ``forward_flops``."""
    compute, calls = outline.suite.compute, outline.calls_per_prediction
    return Arithmetic(flops, 3 if compute.gradient_checkpointing else 2, calls * compute.pairs_per_call)


def forward_flops(model: Component) -> int | None:
    """Counted on a network without numbers."""
    try:
        network = model.cls.untrained(model.config, torch.device("meta"))
    except InputError:
        return None
    if network is None:
        return None
    with torch.no_grad():
        condition, latents = network.encode(""), torch.empty(1, *network.latent_shape, device="meta")
        with FlopCounterMode(display=False) as counter:
            network.predict(network.denoiser, latents, torch.zeros(1, device="meta"), condition)
    return int(counter.get_total_flops())
