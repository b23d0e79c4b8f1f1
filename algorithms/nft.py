"""NFT: DiffusionNFT, negative-aware finetuning on the forward process (Zheng et al. 2025, arXiv 2509.16117).

With r in [0, 1] how good an image is among its prompt's, and x_0 predicted by the policy (theta) and by its lagged copy
(old), a good image pulls the mixture x_0+ towards itself, a bad one pulls x_0-, which lies on the other side of old:

    x_0+ = beta x_0_theta + (1 - beta) x_0_old,        x_0- = (1 + beta) x_0_old - beta x_0_theta
    loss = (a / beta) mean[ r e(x_0+) + (1 - r) e(x_0-) ] + k mean (eps_theta - eps_ref)^2
    r    = A / (2 a) + 1/2,   A = clip((r_i - mean of the prompt) / (std of the batch + 1e-4), -a, a)

with e of `rfbench_algorithms.forward_process` and a = 5. As published, images come from the old policy (``sample_from =
"old"``), whose lag grows: old <- d old + (1 - d) theta after every epoch. At theta = old the gradient is that of
A e. The factor a and the division in e are the official code's; the paper's equation has neither.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rfbench.core.learner import Learner
from rfbench.suite.settings import search
from rfbench_algorithms.forward_process import (
    OLD,
    ForwardProcess,
    ForwardProcessConfig,
    Noised,
    goodness,
    normalised_error,
)


class NFTConfig(ForwardProcessConfig):
    """Settings of NFT."""

    beta: float = Field(
        1.0,
        gt=0,
        description="how far the two mixtures lie from the old policy, in steps from it to the policy",
        json_schema_extra=search(0.1, 1.0),
    )


def nft_loss(policy: Tensor, old: Tensor, clean: Tensor, good: Tensor, beta: float) -> Tensor:
    """The loss ``(m,)``, but for a, of x_0 predicted by policy and old policy ``(m, ...)`` and r ``(m,)``."""
    towards = normalised_error(beta * policy + (1 - beta) * old, clean)
    away = normalised_error((1 + beta) * old - beta * policy, clean)
    return (good * towards + (1 - good) * away) / beta


class NFT(ForwardProcess):
    """Contrast of good and bad images on the forward process."""

    Config = NFTConfig
    config: NFTConfig

    def judge(self, advantages: Tensor) -> Tensor:
        return goodness(advantages, self.config.advantage_clip)

    def losses(self, at: Noised, judged: Tensor, predicted: Tensor, learner: Learner) -> Tensor:
        old = self.predict(learner, at, OLD)
        return self.config.advantage_clip * nft_loss(predicted, old, at.clean, judged, self.config.beta)

    def other_networks(self) -> int:
        return 1
