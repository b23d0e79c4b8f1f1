"""Whether a model can be sampled and trained as the suite says, told from its architecture without a weight."""

from __future__ import annotations

import torch

from rfbench.core.policy import check_trainable
from rfbench.core.schedule import make_schedule
from rfbench.plugins.component import Component
from rfbench.suite.suite import Suite


def check_model_fit(suite: Suite, model: Component) -> None:
    """An ``InputError`` where the sampler's steps or the modules to train are none that the model has."""
    untrained = model.cls.untrained(model.config, torch.device("meta"))
    if untrained is None:
        return
    sampler = suite.sampler
    make_schedule(
        untrained.noise_schedule,
        sampler.num_steps,
        kind=sampler.kind,
        eta=sampler.eta,
        skip_last_steps=sampler.skip_last_steps,
    )
    check_trainable(untrained.denoiser, suite)
