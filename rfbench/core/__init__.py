"""What one epoch flows through, and the interfaces that algorithms, models, rewards and prompt sets fill in."""

from rfbench.core.algorithm import Algorithm, Cost, RolloutNeeds
from rfbench.core.learner import Learner
from rfbench.core.model import Model
from rfbench.core.prompts import PromptSet
from rfbench.core.reward import HeadedReward, Reward
from rfbench.core.rollout import Rollout
from rfbench.suite.settings import Settings

__all__ = [
    "Algorithm",
    "Cost",
    "HeadedReward",
    "Learner",
    "Model",
    "PromptSet",
    "Reward",
    "Rollout",
    "RolloutNeeds",
    "Settings",
]
