"""What a run has spent: counted work, seconds per phase, peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

import torch

PHASES = ("load", "sample", "decode", "reward", "reference", "update", "evaluate")


@dataclass
class Counters:
    """Work done since the run's start. A forward or backward is one latent through the denoiser; guidance makes two.

    ``base_reward_queries`` are images of the base model that were scored apart from the budget (``reward_offsets``).
    """

    reward_queries: int = 0
    images: int = 0
    denoiser_forwards: int = 0
    denoiser_backwards: int = 0
    optimizer_steps: int = 0
    base_reward_queries: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass
class Meter:
    """Counters and a clock. Time outside of every phase is ``other``; a phase inside another pauses the outer one."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    counters: Counters = field(default_factory=Counters)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*PHASES, "other"), 0.0))
    _open: list[str] = field(default_factory=lambda: ["other"])
    _since: float = field(default_factory=time.perf_counter)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time spent inside to ``name``."""
        self.lap()
        self._open.append(name)
        try:
            yield
        finally:
            self.lap()
            self._open.pop()

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Time counts as evaluation, and work is not counted: the counters are those of training alone."""
        before = replace(self.counters)
        with self.phase("evaluate"):
            yield
        vars(self.counters).update(vars(before))

    @property
    def current_phase(self) -> str:
        return self._open[-1]

    def lap(self) -> dict[str, float]:
        """Books the time since the last lap on the open phase; returns the seconds per phase so far."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now
        return dict(self.seconds)

    def peak_memory_bytes(self) -> int:
        """Peak of the GPU's allocated memory, or of this process's resident memory on the CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
