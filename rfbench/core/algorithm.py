"""The interface that an algorithm fills in."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from rfbench.core.learner import Learner
from rfbench.core.rollout import Rollout, RolloutNeeds
from rfbench.errors import InterfaceError, NonFiniteError
from rfbench.records.format import HEAD, RESERVED
from rfbench.suite.settings import Settings

START_ERROR_SHARE = 0.1  # of the clip range


@dataclass(frozen=True)
class Cost:
    """Network calls of one epoch's update, in (image, step) pairs: the dry run's account of ``update``.

    Attributes:
        forwards, backwards: how many; of the policy and the reference together.
        guided: whether a call evaluates both branches of the guidance, and so counts twice.
    """

    forwards: int
    backwards: int
    guided: bool = True


def check_metrics(metrics: Any, where: str) -> dict[str, float]:
    """What ``update`` returned, if that is finite numbers by name; an error that starts with ``where`` if not."""
    if not isinstance(metrics, dict):
        raise InterfaceError(f"{where} returned {type(metrics).__name__} from update; it must return a dict of numbers")
    for name, value in metrics.items():
        if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, int | float):
            raise InterfaceError(
                f"{where} returned the metric {name!r} = {value!r} ({type(value).__name__}); "
                "metrics are plain numbers by name, such as float(tensor)"
            )
        if name in RESERVED or name.startswith(HEAD):
            raise InterfaceError(f"{where} returned the metric {name!r}: that name is rfbench's own; use another")
        if not abs(value) <= sys.float_info.max:  # an integer may be larger, and NaN is not
            raise NonFiniteError(f"{where} returned the metric {name!r} = {value}")
    return metrics


def check_answers(algorithm: Algorithm, where: str) -> None:
    """An ``InterfaceError`` where what an algorithm says of itself is of another kind."""
    for name in ("clip_range", "largest_start_error"):
        value = getattr(algorithm, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            raise InterfaceError(f"{where}: {name} is {value!r}; it is a number above 0, or None")


class Algorithm(ABC):
    """A reward-finetuning algorithm: given an epoch's rollout, update the policy.

    ``update`` may be called with any number of processes: a rollout's scalars are those of all processes, chunks are
    this process's share, and gradients are summed over processes. So a loss divided by ``rollout.num_images`` is right.

    Attributes:
        rollout_needs: what the sampler must give.
        snapshots: copies of the policy that the algorithm keeps beside it, by name. Each begins as the base model, and
            changes by ``learner.policy.take_snapshot`` and ``blend_snapshot`` alone; checkpoints hold them. A suite may
            sample from one that is called ``old``.
    """

    Config: ClassVar[type[Settings]] = Settings
    rollout_needs: ClassVar[RolloutNeeds] = RolloutNeeds()
    snapshots: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod  # noqa: B027  # most settings can work
    def check(cls, config: Any, num_prompts: int, images_per_prompt: int, num_steps: int) -> None:
        """Raises an ``InputError`` where an algorithm of this ``Config`` cannot learn from epochs of that size.

        Called while the run is planned, before anything loads: for groups that leave no contrast, batches that
        cannot be divided, and the like. The message says what does not fit, both values, and which field to change,
        by its name in the algorithm's table. The arguments are those of ``cost``.
        """

    @abstractmethod
    def update(self, rollout: Rollout, learner: Learner) -> dict[str, float]:
        """Updates ``learner.policy`` from one epoch's rollout; returns metrics for its line of ``metrics.jsonl``."""

    @abstractmethod
    def cost(self, num_prompts: int, images_per_prompt: int, num_steps: int) -> Cost:
        """Network calls of one ``update`` on a rollout of that size, with ``num_steps`` objective steps."""

    @property
    def clip_range(self) -> float | None:
        """The change of a step's log-prob at which the objective clips, in nats per dimension; None: it does not."""
        return None

    @property
    def largest_start_error(self) -> float | None:
        """The largest ``start_error`` with which the objective is still what it says; None: any will do.

        By default a tenth of ``clip_range``: beyond it, rounding decides what is clipped. None where an epoch has one
        update, which starts where its images were sampled, and where there is no ratio.
        """
        return None if self.clip_range is None else START_ERROR_SHARE * self.clip_range

    def state_dict(self) -> dict[str, Any]:
        """What must survive a resume, besides the policy and its optimiser: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  # most algorithms have no state
        """Restores what ``state_dict`` gave."""
