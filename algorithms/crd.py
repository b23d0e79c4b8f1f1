"""CRD: reward difference on the forward process (arXiv 2603.14128), PRDP's twin without trajectories.

How much better the policy (theta) restores a noised image than its lagged copy (old) is the image's implicit reward. It
is regressed on the reward, both centred within the prompt:

    rho  = -(e_theta - e_old),        e of `rfbench_algorithms.forward_process`
    loss = (a / beta) mean[ (beta (rho - mean rho of the prompt) - (A - mean A of the prompt))^2 ]
           + k mean (eps_theta - eps_ref)^2
    A    = clip((r_i - mean of the prompt) / (std of the batch + 1e-4), -a, a) / (2 a) + 1/2

with a = 5. The images of a prompt share noise level and noise, so that their rho differ by what they are; the mean of
rho carries no gradient, as in the official code. For n images the centred square is that of all pairs' differences over
n, as PRDP has them: what differs from PRDP is the ratio (the ELBO's, not the trajectory's), its denominator (old, not
the reference) and that nothing is clipped.

The official code keeps two lagged policies, one in the loss and one to sample from; here one is both.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rfbench.core.learner import Learner
from rfbench.core.policy import POLICY
from rfbench.core.rollout import Rollout, group_means
from rfbench.suite.settings import search
from rfbench_algorithms.forward_process import (
    OLD,
    ForwardProcess,
    ForwardProcessConfig,
    Noised,
    goodness,
    noised,
    normalised_error,
)


class CRDConfig(ForwardProcessConfig):
    """Settings of CRD."""

    beta: float = Field(
        1.0,
        gt=0,
        description="what a unit of implicit reward counts against A",
        json_schema_extra=search(0.1, 10.0),
    )
    kl_weight: float = Field(
        0.1, ge=0, description="k, of the squared distance to the reference's network output, a mean over dimensions"
    )
    old_decay_slope: float = Field(0.005, ge=0, description="by how much the lag of the old policy grows every epoch")
    old_decay_max: float = Field(0.999, ge=0, lt=1, description="and up to where")


def residuals(implicit: Tensor, judged: Tensor, groups: Tensor, beta: float) -> Tensor:
    """``(images,)`` by how much the centred implicit rewards miss the centred A, of three ``(images,)``."""
    centred = [values - group_means(values, groups) for values in (implicit, judged)]
    return beta * centred[0] - centred[1]


class CRD(ForwardProcess):
    """Regression of implicit on true reward differences, on the forward process."""

    Config = CRDConfig
    config: CRDConfig
    shared_noise = True

    def judge(self, advantages: Tensor) -> Tensor:
        return goodness(advantages, self.config.advantage_clip)

    @torch.no_grad()
    def prepare(self, rollout: Rollout, learner: Learner, where: Tensor, judged: Tensor) -> Tensor:
        """Each image's derivative of its loss by its implicit reward, ``(images, draws)``."""
        draws = self.config.num_draws(rollout.num_steps)
        implicit = torch.zeros(rollout.num_images, draws, dtype=torch.float64)
        for at in noised(rollout, learner, draws, where=where, shared=True):
            errors, old = (normalised_error(self.predict(learner, at, w), at.clean) for w in (POLICY, OLD))
            implicit[at.images, at.draw] = (old - errors).double().cpu()
        implicit, groups = learner.sum(implicit), rollout.prompt_ids()
        missed = torch.stack([residuals(column, judged, groups, self.config.beta) for column in implicit.T], dim=1)
        return 2 * self.config.advantage_clip * missed

    def losses(self, at: Noised, judged: Tensor, predicted: Tensor, learner: Learner) -> Tensor:
        return -judged * normalised_error(predicted, at.clean)

    def other_networks(self) -> int:
        return 2
