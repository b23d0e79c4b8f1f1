"""A slow or remote reward in worker threads, while sampling goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from threading import Semaphore, Thread
from typing import TypeVar

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.reward import AsyncReward, check_shape
from rfbench.errors import RfbenchError
from rfbench.plugins.component import Component, find_component
from rfbench.suite.settings import Settings
from rfbench.suite.suite import PluginRef

Result = TypeVar("Result")


class WorkersConfig(Settings):
    """Settings of a reward in worker threads."""

    reward: PluginRef = Field(description="the reward with its own settings; several threads call it at once")
    num_workers: int = Field(4, ge=1, description="batches that are scored at the same time")
    batch_size: int = Field(16, ge=1, description="images of one call")
    timeout_seconds: float = Field(120.0, gt=0, description="time limit of one call; a call that passes it is left")
    retries: int = Field(2, ge=0, description="further calls after one that failed or passed its time limit")

    def part(self) -> Component:
        """The reward, found and configured; an ``InputError`` names a wrong setting."""
        return find_component("rewards", self.reward)

    def model_post_init(self, context: object) -> None:
        self.part()


class Workers(AsyncReward):
    """Any reward in worker threads while sampling goes on, with a time limit and retries."""

    Config = WorkersConfig

    @classmethod
    def components(cls, config: WorkersConfig) -> dict[str, Component]:
        return {"reward": config.part()}

    def __init__(self, config: WorkersConfig, device: torch.device) -> None:
        self._name, self._reward = config.reward.name, config.part().make(device)
        self._free, self._size = Semaphore(config.num_workers), config.batch_size
        self._attempts, self._limit = config.retries + 1, config.timeout_seconds
        self.unit, self.version = self._reward.unit, self._reward.version
        self.uses_prompts = self._reward.uses_prompts

    def submit(self, images: Tensor, prompts: Sequence[str]) -> Callable[[], Tensor]:
        images = images.cpu()  # what waits to be scored must not take memory from what is sampled
        batches = [
            _in_thread(partial(self._score, images, prompts, range(first, min(first + self._size, len(images)))))
            for first in range(0, len(images), self._size)
        ]
        return lambda: torch.cat([batch.result() for batch in batches])

    def _score(self, images: Tensor, prompts: Sequence[str], rows: range) -> Tensor:
        """One batch, tried until it is scored or the retries are spent."""
        where = f"images {rows.start} to {rows.stop - 1} of {len(images)}"
        with self._free:
            for _ in range(self._attempts):
                call = _in_thread(partial(self._call, images[rows.start : rows.stop], prompts[rows.start : rows.stop]))
                wait([call], self._limit)
                if not call.done():
                    failure = f"no answer within {self._limit:g} s"
                elif error := call.exception():
                    if isinstance(error, RfbenchError):
                        raise error  # what is wrong stays wrong
                    failure = f"{type(error).__name__}: {error}"
                else:
                    check_shape(call.result(), self._name, len(rows), where)
                    return call.result().float().cpu()
        raise RfbenchError(
            f"the reward {self._name!r} failed on {where} after {self._attempts} attempts; the last: {failure}"
        )

    @torch.no_grad()  # which is a setting of each thread
    def _call(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._reward(images, prompts)


def _in_thread(function: Callable[[], Result]) -> Future[Result]:
    """Runs ``function`` in a daemon thread: unlike a pool's, a thread that hangs does not keep the program alive."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future
