"""The prompts of the analytic world."""

from __future__ import annotations

from rfbench.core.prompts import PromptSet
from rfbench.suite.settings import Settings
from rfbench.worlds.gaussian import world


class GaussianPrompts(PromptSet):
    """Eight directions in the plane, 45 degrees apart."""

    def __init__(self, config: Settings) -> None:
        """There is nothing to set."""

    def __len__(self) -> int:
        return len(world.PROMPTS)

    def __getitem__(self, index: int) -> str:
        return world.PROMPTS[index]
