"""A flow model's scheduler file as its process; what it asks for beyond is refused.

As for the noise schedules of betas, rfbench samples as the suite says: of the file counts what decides which noise
levels a chain visits.
"""

from __future__ import annotations

from typing import Any

from rfbench.core.noising.flow import FEWEST_TOKENS, HIGHEST_MU, LOWEST_MU, MOST_TOKENS, Flow, dynamic_shift
from rfbench.errors import InputError

SCHEDULER = "FlowMatchEulerDiscreteScheduler"
TRAINING_STEPS = 1000
DYNAMIC = {  # of mu, by the scheduler's own defaults
    "base_image_seq_len": FEWEST_TOKENS,
    "base_shift": LOWEST_MU,
    "max_image_seq_len": MOST_TOKENS,
    "max_shift": HIGHEST_MU,
}
OTHER_SPACINGS = (
    "shift_terminal",
    "invert_sigmas",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
)


def check(file: dict[str, Any], where: str) -> None:
    """An ``InputError`` names what the file asks for and rfbench does not do."""
    kind = file.get("_class_name")
    if kind != SCHEDULER:
        raise InputError(
            f"{where}: the scheduler is {f'a {kind}' if kind else 'of no class'}, which does not say how a flow was "
            f"trained; rfbench reads a {SCHEDULER}"
        )
    steps = file.get("num_train_timesteps", TRAINING_STEPS)
    if type(steps) is not int or steps < 1:
        raise InputError(f"{where}: num_train_timesteps of the scheduler is {steps!r}, not a whole number from 1")
    for key, default in {"shift": 1.0, **DYNAMIC}.items():
        value = file.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise InputError(f"{where}: {key} of the scheduler is {value!r}; it is a number above 0")
    for key in OTHER_SPACINGS:
        if file.get(key):
            raise InputError(
                f"{where}: the scheduler asks for {key}, another spacing of its steps, which rfbench does not know"
            )
    if file.get("use_dynamic_shifting") and file.get("time_shift_type", "exponential") != "exponential":
        raise InputError(
            f"{where}: time_shift_type is {file['time_shift_type']!r}; rfbench knows the exponential shift alone"
        )
    if file.get("stochastic_sampling"):
        raise InputError(
            f"{where}: the scheduler asks for stochastic_sampling; here the suite says how images are drawn, as "
            "sampler.kind, so write false in its file"
        )


def read(file: dict[str, Any], num_tokens: int) -> Flow:
    """The process of a checked file, for images of so many tokens.

    The last step starts where diffusers' does: at the shifted level of the last training step, to which the scheduler
    applies its shift once more.
    """
    last = 1 / training_steps(file)
    if file.get("use_dynamic_shifting"):
        fewest, lowest, most, highest = (file.get(key, default) for key, default in DYNAMIC.items())
        return Flow(dynamic_shift(num_tokens, fewest, lowest, most, highest), last)
    shift = float(file.get("shift", 1.0))
    return Flow(shift, shift * last / (1 + (shift - 1) * last))


def training_steps(file: dict[str, Any]) -> int:
    """What the network's timestep is at pure noise."""
    return int(file.get("num_train_timesteps", TRAINING_STEPS))
