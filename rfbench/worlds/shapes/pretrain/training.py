"""What every stage's loop shares: precision, a learning rate schedule, a weight average, a progress line."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import torch
from torch import nn


def autocast() -> torch.autocast:
    """bfloat16, but on a CPU without AVX-512, where it is emulated and six times slower than float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.backends.cpu.get_cpu_capability() == "AVX512")


def cosine_with_warmup(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over the first 5 % of `steps`, then a cosine down to 2 % of the learning rate."""
    warmup = max(1, steps // 20)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class Average:
    """An exponential moving average of parameters, warmed up so that early steps are forgotten quickly."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.values = [parameter.detach().clone() for parameter in module.parameters()]

    @torch.no_grad()
    def update(self, parameters: Iterable[torch.Tensor]) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for value, parameter in zip(self.values, parameters, strict=True):
            value.lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for parameter, value in zip(module.parameters(), self.values, strict=True):
            parameter.copy_(value)


class Progress:
    """Prints a stage's step, losses and seconds every so often."""

    def __init__(self, stage: str, steps: int, every: int) -> None:
        self.stage, self.steps, self.every = stage, steps, every
        self.start = time.perf_counter()

    def __call__(self, step: int, **values: float) -> None:
        if step % self.every == 0 or step == self.steps:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
            print(f"{self.stage} {step}/{self.steps}  {shown}  {time.perf_counter() - self.start:.0f} s", flush=True)
