"""A pipeline's scheduler file as the noise schedule that its UNet was trained with; what it asks for beyond is refused.

rfbench samples as the suite says whatever scheduler the file names, as diffusers does after
``DDIMScheduler.from_config``. So of the file counts what the UNet was trained with (betas, kind of prediction), and
what changes a step of DDPM or DDIM.
"""

from __future__ import annotations

import inspect
from typing import Any

from rfbench.core.noising.diffusion import SPACINGS, Diffusion
from rfbench.errors import InputError

PREDICTION_TYPES = ("epsilon", "v_prediction")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
FIXED_VARIANCE = (None, "fixed_small", "fixed_small_log")
SCHEDULERS = (  # diffusers' schedulers of a chain that betas define
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
CLIPPING = ("DDIMScheduler", "DDPMScheduler")  # clip_sample is true where their files say nothing


def corrected(file: dict[str, Any], *, is_xl: bool) -> tuple[dict[str, Any], list[str]]:
    """The scheduler's file as diffusers' pipelines of 1.x and 2.x correct it, and what was corrected."""
    if is_xl:
        return file, []
    changes: dict[str, Any] = {}
    remarks = []
    if file.get("steps_offset", 0) != 1:
        changes["steps_offset"] = 1
        remarks.append(f"steps_offset of the scheduler is {file.get('steps_offset', 0)}; taken as 1, as diffusers does")
    if _clips(file):
        changes["clip_sample"] = False
        remarks.append("clip_sample of the scheduler is on; taken as off, as diffusers does")
    return file | changes, remarks


def check(file: dict[str, Any], where: str) -> None:
    """An ``InputError`` names what the file, corrected, asks for and rfbench does not do."""
    kind = file.get("_class_name")
    if kind not in SCHEDULERS:
        raise InputError(
            f"{where}: the scheduler is {f'a {kind}' if kind else 'of no class'}, which does not say the betas that "
            f"the UNet was trained with; rfbench reads {', '.join(SCHEDULERS)}"
        )
    if file.get("trained_betas") is None:
        absent = [key for key in ("beta_schedule", "beta_start", "beta_end") if file.get(key) is None]
        if absent:
            raise InputError(
                f"{where}: the scheduler's file has no {' and no '.join(absent)}, so nothing says which noise the UNet "
                "was trained with"
            )
    _check_numbers(file, where)
    known = {
        "prediction_type": (file.get("prediction_type", "epsilon"), PREDICTION_TYPES),
        "beta_schedule": (file.get("beta_schedule", "linear"), BETA_SCHEDULES),
        "timestep_spacing": (file.get("timestep_spacing", "leading"), SPACINGS),
        "timestep_type": (file.get("timestep_type", "discrete"), ("discrete",)),  # continuous: EDM's, of log sigma
        "variance_type": (file.get("variance_type"), FIXED_VARIANCE),
    }
    for key, (value, values) in known.items():
        if value not in values:
            raise InputError(f"{where}: {key} is {value!r}; rfbench knows {', '.join(str(v) for v in values if v)}")
    unknown = {
        "thresholding": bool(file.get("thresholding")),
        "clip_sample": _clips(file),
        "rescale_betas_zero_snr": bool(file.get("rescale_betas_zero_snr")),
        "use_flow_sigmas": bool(file.get("use_flow_sigmas")),
    }
    for key, on in unknown.items():
        if on:
            raise InputError(f"{where}: the scheduler asks for {key}, which rfbench does not do: {REASONS[key]}")


def _check_numbers(file: dict[str, Any], where: str) -> None:
    """An ``InputError`` where the betas are none: one between 0 and 1 for every training step."""
    steps, betas = file.get("num_train_timesteps", 1000), file.get("trained_betas")
    counts = {"num_train_timesteps": (steps, 1), "steps_offset": (file.get("steps_offset", 0), 0)}
    for key, (value, least) in counts.items():
        if type(value) is not int or value < least:
            raise InputError(f"{where}: {key} of the scheduler is {value!r}, not a whole number from {least}")
    if betas is not None and (not isinstance(betas, list) or len(betas) != steps):
        found = f"has {len(betas)} numbers" if isinstance(betas, list) else f"is {betas!r}"
        raise InputError(f"{where}: trained_betas of the scheduler {found}; it needs one for each of {steps} steps")
    given = {key: file.get(key) for key in ("beta_start", "beta_end")}
    for key, beta in (given if betas is None else {f"trained_betas.{i}": beta for i, beta in enumerate(betas)}).items():
        if not isinstance(beta, int | float) or not 0 < beta < 1:
            raise InputError(f"{where}: {key} of the scheduler is {beta!r}; a beta is a number between 0 and 1")


REASONS = {
    "thresholding": "the step's mean would no longer be linear in the network's output",
    "clip_sample": "the step's mean would no longer be linear in the network's output; latents are not clipped, so "
    'write "clip_sample": false in its file if it means none',
    "rescale_betas_zero_snr": "nothing of the image is left at the first step, where its chain divides by zero",
    "use_flow_sigmas": "it is a flow model's",
}


def read(file: dict[str, Any]) -> Diffusion:
    """The process of a file that was corrected and checked."""
    from diffusers import DDIMScheduler

    # from_config gives the same, after importing every scheduler that could read the file, and scipy for one of them
    known = inspect.signature(DDIMScheduler).parameters
    scheduler: Any = DDIMScheduler(**{key: value for key, value in file.items() if key in known})
    return Diffusion(
        scheduler.alphas_cumprod,
        scheduler.config.prediction_type,
        scheduler.config.steps_offset,
        float(scheduler.final_alpha_cumprod),
        scheduler.config.timestep_spacing,
    )


def _clips(file: dict[str, Any]) -> bool:
    return bool(file.get("clip_sample", file.get("_class_name") in CLIPPING))
