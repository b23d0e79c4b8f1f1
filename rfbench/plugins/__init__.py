"""How algorithms, models, rewards and prompt sets are found and configured."""

from rfbench.plugins.registry import register

__all__ = ["register"]
