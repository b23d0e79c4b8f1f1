"""The analytic world as a base model: the exact denoiser plus a learnable shift per prompt and timestep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rfbench.core.conditioning import Condition
from rfbench.core.model import Model
from rfbench.core.noising.flow import AsFlow
from rfbench.core.noising.process import Process
from rfbench.core.schedule import Schedule
from rfbench.errors import InputError
from rfbench.suite.settings import Settings
from rfbench.suite.suite import Sampler, Suite
from rfbench.worlds.gaussian import closed_forms, picture, world


class GaussianConfig(Settings):
    """Settings of the analytic world."""

    beta: float = Field(
        4.0, gt=0, description="KL weight of J and its optimum, reward units per (nat per latent dimension and step)"
    )
    process: Literal["flow", "converted"] | None = Field(
        None,
        description="null: a diffusion, whose denoiser predicts noise; flow: a rectified flow, velocity; converted: "
        "that diffusion as a flow",
    )


class ShiftedDenoiser(nn.Module):
    """E[output | x_t, c] plus a shift; a unit of ``shift`` moves the mean of a step of ``unit`` by its own sigma.

    In that unit the KL is ``|shift|^2 / 2`` and every step's log-ratio is equally sensitive to its parameters.
    """

    timesteps: Tensor
    means: Tensor
    output_per_unit: Tensor

    def __init__(self, unit: Schedule, exact: closed_forms.Exact, means: Tensor) -> None:
        super().__init__()
        self.exact = exact
        self.register_buffer("timesteps", unit.timesteps.flip(0).double())
        self.register_buffer("means", means.float())
        self.register_buffer("output_per_unit", (unit.sigma / unit.output_weight).flip(0).float())
        self.shift = nn.Parameter(torch.zeros(len(means), len(self.output_per_unit), means.shape[1]))

    def output_shift(self) -> Tensor:
        """What is added to the exact output, ``(prompts, timesteps, dimensions)``."""
        return self.output_per_unit[:, None] * self.shift

    def nearest(self, timesteps: Tensor) -> Tensor:
        """Which of its own timesteps is nearest to each of the ``timesteps`` ``(m,)``."""
        return torch.bucketize(timesteps.double(), (self.timesteps[1:] + self.timesteps[:-1]) / 2)

    def forward(self, latents: Tensor, timesteps: Tensor, prompts: Tensor) -> Tensor:
        """The output ``(m, dimensions)`` at ``timesteps`` ``(m,)`` for the prompts' rows ``(m,)``."""
        exact = self.exact(latents, self.means[prompts], timesteps)
        return exact + self.output_shift()[prompts, self.nearest(timesteps)]


class Gaussian(Model):
    """Points in the plane with exact expected reward, KL and KL-regularised optimum; its images are the points."""

    Config: ClassVar[type[Settings]] = GaussianConfig
    image_kind: ClassVar[str] = "points"
    exact_units: ClassVar[dict[str, str]] = {
        "expected_reward": "reward",
        "expected_kl": "nats",
        "J": "reward",
        "regret": "reward",
    }

    def __init__(self, config: GaussianConfig, device: torch.device) -> None:
        self.process = self.read_process(config)
        sampler = Sampler(kind=_kind(config), num_steps=world.NUM_TIMESTEPS)
        if config.process == "flow":
            unit, exact = world.flow().chain(sampler), closed_forms.exact_velocity(world.DATA_STD)
        else:
            diffusion = world.diffusion()
            unit, exact = diffusion.chain(sampler), closed_forms.exact_noise(diffusion, world.DATA_STD)
        self.denoiser = ShiftedDenoiser(unit, exact, world.directions()).to(device)
        self.latent_shape = (world.DIMENSIONS,)
        self._config = config
        self._device = device

    @classmethod
    def read_process(cls, config: GaussianConfig) -> Process:
        if config.process == "flow":
            return world.flow()
        return AsFlow(world.diffusion()) if config.process == "converted" else world.diffusion()

    @classmethod
    def check_suite(cls, config: GaussianConfig, suite: Suite) -> None:
        if suite.sampler.guidance_scale != 1:
            raise InputError(
                f"sampler.guidance_scale is {suite.sampler.guidance_scale:g}, but the gaussian world has no "
                "unconditional prompt; use --set sampler.guidance_scale=1"
            )
        if suite.finetune.method == "lora":
            raise InputError(
                "finetune.method is 'lora', but the gaussian world's denoiser takes no adapters; "
                "use --set finetune.method=full"
            )
        if suite.compute.gradient_checkpointing:
            raise InputError(
                "compute.gradient_checkpointing is on, but the gaussian world's denoiser has no activations to compute "
                "again; use --set compute.gradient_checkpointing=false"
            )
        _check_chain(cls.read_process(config).chain(suite.sampler), config)

    @classmethod
    def check_prompts(cls, config: GaussianConfig, prompts: Iterable[str]) -> None:
        for prompt in prompts:
            world.index(prompt)

    def encode(self, prompt: str) -> Condition:
        if not prompt:
            raise InputError("the gaussian world has no unconditional prompt; use --set sampler.guidance_scale=1")
        return {"prompt": torch.tensor([world.index(prompt)], device=self._device)}

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        return denoiser(latents, timesteps, condition["prompt"])

    def prompt_features(self, condition: Condition) -> Tensor:
        """The prompts' directions, ``(m, 2)``."""
        return world.directions().float().to(self._device)[condition["prompt"]]

    def decode(self, latents: Tensor) -> Tensor:
        """The points ``(m, 2)`` themselves: a linear reward is exact only at full precision."""
        return latents

    def pictures(self, images: Tensor) -> Tensor:
        return picture.draw(images)

    def exact(self, latents: Tensor, mean: Tensor, timesteps: Tensor) -> Tensor:
        """E[output | x_t] ``(m, dimensions)`` for latents and means of the data of the same shape."""
        shown = self.process.network_latents(latents, timesteps)
        return self.process.output_of(self.denoiser.exact(shown, mean, timesteps), shown, timesteps)  # type: ignore[operator]

    @torch.no_grad()
    def mean_shifts(self, schedule: Schedule) -> Tensor:
        """How far each step's mean is from the reference's, ``(prompts, steps, dimensions)`` float64, on the CPU."""
        rows = self.denoiser.nearest(schedule.timesteps)  # type: ignore[operator]
        raw = self.denoiser.output_shift()[:, rows].transpose(0, 1)  # type: ignore[operator]
        output_shift = self.process.output_of(raw, torch.zeros_like(raw), schedule.timesteps).transpose(0, 1)
        return (schedule.output_weight[:, None] * output_shift).double().cpu()

    def exact_measures(self, schedule: Schedule, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Expected reward, KL, J and regret ``(prompts,)`` of the policy, without sampling."""
        _check_chain(schedule, self._config)
        rows = torch.tensor([world.index(prompt) for prompt in prompts])
        directions = world.directions()[rows]
        return closed_forms.measures(
            closed_forms.reference_chain(schedule, self.exact),
            means=directions,
            directions=directions,
            shifts=self.mean_shifts(schedule)[rows],
            beta=self._config.beta / (schedule.num_steps * world.DIMENSIONS),
        )


def _kind(config: GaussianConfig) -> str:
    """The sampler whose steps all have a density; a flow's chain ends in an image, where DDIM's last step has none."""
    return "flow-sde" if config.process == "flow" else "ddim"


def _check_chain(schedule: Schedule, config: GaussianConfig) -> None:
    """The optimum is that of all steps."""
    if len(schedule.objective_steps) < schedule.num_steps:
        raise InputError(
            f"the gaussian world's optimum counts every denoising step, but {len(schedule.objective_steps)} of "
            f"{schedule.num_steps} carry a gradient; use --set sampler.kind={_kind(config)} --set "
            "sampler.skip_last_steps=0"
        )
