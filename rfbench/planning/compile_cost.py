"""Where ``compute.compile`` pays: its price is paid once, its gain with every image."""

from __future__ import annotations

from rfbench.planning.arithmetic import forward_flops
from rfbench.planning.plan import Outline

# Measured on one core of a CPU with the embedded world's UNet; a GPU compiles other code, and was not measured.
SECONDS_ONCE = 210.0
SHARE_OF_SAMPLING = 0.2  # that it saves; of the update it saves nothing
CPU_RATE = 5e10  # floating-point operations per second


def compile_remark(outline: Outline) -> str | None:
    """Why ``compute.compile`` does not pay in this run on a CPU; None where it is off, or does."""
    flops = forward_flops(outline.model) if outline.suite.compute.compile else None
    if flops is None:
        return None
    sampling = outline.sampling_forwards() * flops / CPU_RATE
    saved = SHARE_OF_SAMPLING * sampling
    if saved > SECONDS_ONCE:
        return None
    return (
        f"compute.compile takes about {SECONDS_ONCE:.0f} s once on a CPU, and would save about {saved:.0f} s: "
        f"{SHARE_OF_SAMPLING:.0%} of {sampling:.0f} s of sampling, and nothing of the update; turn it off"
    )
