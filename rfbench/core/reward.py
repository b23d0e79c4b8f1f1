"""What rfbench asks of a reward, and the one place where rewards are called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from rfbench.errors import InterfaceError, NonFiniteError
from rfbench.hub.sources import Sourced
from rfbench.suite.settings import Settings

LARGEST_SCORE = 1e16  # its square, summed over a million images, is a number in fp32


class Reward(Sourced, ABC):
    """Scores images against their prompts; higher is better.

    A reward is made from its ``Config`` and a device. Scores of one image must not depend on the others in the batch.

    Attributes:
        unit: what one unit of the score is, for tables and for beta.
        version: version of the checkpoint or rule that scores.
        uses_prompts: whether the score depends on the prompt.
        image_kind: what it scores, such as "pixels"; None leaves it open. The model's must be the same.
    """

    Config: ClassVar[type[Settings]] = Settings
    unit: str
    version: str
    uses_prompts: bool = True
    image_kind: ClassVar[str | None] = None

    @classmethod
    def check_prompts(cls, config: Any, prompts: Iterable[str]) -> None:
        """Raises an ``InputError`` for the first of ``prompts`` that it cannot score; most rewards take any text."""

    @abstractmethod
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores ``(n,)`` of images as the model decodes them: 8-bit RGB ``(n, 3, H, W)``."""


class AsyncReward(Reward):
    """A reward that scores elsewhere, such as in threads or on a server, while sampling goes on.

    It gives its total alone: a class that is a ``HeadedReward`` too is an ``InterfaceError``.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if issubclass(cls, HeadedReward):
            raise InterfaceError(
                f"{cls.__name__} is an AsyncReward and a HeadedReward, but what is submitted comes back as a total, "
                "without heads; derive it from one of them"
            )

    @abstractmethod
    def submit(self, images: Tensor, prompts: Sequence[str]) -> Callable[[], Tensor]:
        """Begins to score; the function that comes back waits for the scores ``(n,)``."""

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.submit(images, prompts)()


class HeadedReward(Reward):
    """A reward that is made of several scores, its heads, such as the terms of a sum.

    Each is recorded beside the total, and algorithms find them in ``rollout.reward_heads``.
    """

    @abstractmethod
    def by_head(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Every head's scores ``(n,)``, each in its own unit."""

    @abstractmethod
    def total(self, by_head: dict[str, Tensor]) -> Tensor:
        """The reward ``(n,)`` that they make."""

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.total(self.by_head(images, prompts))


class Scores(NamedTuple):
    """Those of ``n`` images, fp32 on the CPU, checked."""

    total: Tensor  # (n,)
    by_head: dict[str, Tensor]  # (n,) each; empty for a reward without heads


@torch.no_grad()
def score(reward: Reward, name: str, images: Tensor, prompts: Sequence[str], where: str, first: int) -> Tensor:
    """The reward's scores ``(n,)``, fp32 on the CPU, checked.

    ``where`` (such as "epoch 3") and ``first``, the first image's number there, go into errors.
    """
    return begin(reward, name, images, prompts, where, first)().total


@torch.no_grad()
def begin(
    reward: Reward, name: str, images: Tensor, prompts: Sequence[str], where: str, first: int
) -> Callable[[], Scores]:
    """Like ``score``, with a function that gives the scores; an ``AsyncReward`` works on them until it is called."""
    given = images.clone()

    def checked(total: Tensor, by_head: dict[str, Tensor] | None = None) -> Scores:
        found = Scores(
            _checked(total, name, prompts, where, first),
            {
                head: _checked(scores, f"{name}, head {head}", prompts, where, first)
                for head, scores in (by_head or {}).items()
            },
        )
        if not torch.equal(images, given):
            raise InterfaceError(
                f"the reward {name!r} changed the images that it scored at {where}, which others see too; let it work "
                "on a copy, such as images.clone()"
            )
        return found

    if isinstance(reward, AsyncReward):
        wait = reward.submit(images, prompts)
        return lambda: checked(wait())
    if isinstance(reward, HeadedReward):
        by_head = reward.by_head(images, prompts)
        scores = checked(reward.total(by_head), by_head)
    else:
        scores = checked(reward(images, prompts))
    return lambda: scores


def check_shape(scores: Tensor, name: str, count: int, where: str) -> None:
    """An ``InterfaceError`` unless there is one score for each of ``count`` images."""
    if not isinstance(scores, Tensor):
        raise InterfaceError(f"the reward {name!r} returned a {type(scores).__name__}; it must return a torch.Tensor")
    if scores.is_complex():
        raise InterfaceError(f"the reward {name!r} returned complex numbers at {where}; a score is a real number")
    found = tuple(scores.shape)
    if found == (count,):
        return
    hint = f"it must return one score per image, ({count},)"
    if count > 1 and found == (count, count):
        hint = f"that is every image against every prompt; {hint}: the diagonal"
    raise InterfaceError(f"the reward {name!r} returned shape {found} for {count} images at {where}; {hint}")


def _checked(scores: Tensor, name: str, prompts: Sequence[str], where: str, first: int) -> Tensor:
    check_shape(scores, name, len(prompts), where)
    scores = scores.float().cpu()
    broken = torch.nonzero(~(scores.abs() <= LARGEST_SCORE)).flatten().tolist()  # NaN is not, either
    if broken:
        worst = broken[0]
        raise NonFiniteError(
            f"the reward {name!r} gave {scores[worst].item()} at {where} for image {first + worst}, prompt "
            f"{prompts[worst]!r} ({len(broken)} of {len(scores)} scores of its batch are not finite, or beyond "
            f"{LARGEST_SCORE:g}, which leaves no room for their spread)"
        )
    return scores
