"""What runs had reached by some epoch: the gain in the trained reward, and the KL from the base model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from rfbench.running.folder import RunFolder


class End(NamedTuple):
    """Of one run and evaluation set at one epoch."""

    gain: float  # over the base model, in units of the trained reward
    kl: float  # nats, of the trained steps


def end(folder: Path, evaluation_set: str, epoch: int | None = None) -> End:
    """At ``epoch``, by default the run's last evaluated one."""
    found = [r for r in RunFolder(folder, writer=False).read("evals") if r.evaluation_set == evaluation_set]
    reward = {record.epoch: record.mean for record in found if record.role == "training"}
    kl = {record.epoch: record.mean for record in found if record.measure == "kl"}
    at = max(reward) if epoch is None else epoch
    return End(reward[at] - reward[0], kl[at])


def means(folders: list[Path], epoch: int | None = None) -> list[str]:
    """Seeds, mean gains on seen and on unseen prompts, and mean KL, as a table shows them."""
    seen, unseen = ([end(folder, name, epoch) for folder in folders] for name in ("seen", "unseen"))
    gains = [f"{np.mean([e.gain for e in ends]):+.2f}" for ends in (seen, unseen)]
    return [str(len(folders)), *gains, f"{np.mean([e.kl for e in seen]):.0f}"]
