"""Best-of-n: finetuning on the best images of every prompt (RAFT, Dong et al. 2023, arXiv 2304.06767).

Of a prompt's n images of an epoch the k best count alike, the others not at all:

    mean over images of  w_i |eps - eps_theta(sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps, t, c)|^2,    w_i = n / k or 0

It is reward-weighted regression with hard weights, which need no temperature; rounds and loss are shared with it:
`rfbench_algorithms.weighted_fit`.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rfbench.errors import InputError
from rfbench_algorithms.weighted_fit import Images, WeightedFit, WeightedFitConfig, best_weights, of_each


class BestOfNConfig(WeightedFitConfig):
    """Settings of best-of-n."""

    keep: int = Field(1, ge=1, description="k, the best images of each prompt and epoch that count")


class BestOfN(WeightedFit):
    """Denoising loss on the best of the policy's own samples."""

    Config = BestOfNConfig
    config: BestOfNConfig

    @classmethod
    def check(cls, config: BestOfNConfig, num_prompts: int, images_per_prompt: int, num_steps: int) -> None:
        if config.keep >= images_per_prompt:
            raise InputError(
                f"config.keep is {config.keep}, but images_per_prompt {images_per_prompt}: every weight would be 1, "
                f"whatever the reward; use config.keep={images_per_prompt - 1} or fewer, or more images_per_prompt"
            )

    def weights(self, images: Images) -> Tensor:
        return of_each(images.groups, images.rewards.double(), lambda rewards: best_weights(rewards, self.config.keep))

    def num_counting(self, num_prompts: int, images_per_prompt: int) -> int:
        return num_prompts * self.config.epochs_per_round * self.config.keep
