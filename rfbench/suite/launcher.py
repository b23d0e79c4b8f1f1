"""What a launcher says by environment variables: how many processes there are, and what it would have them do."""

from __future__ import annotations

from collections.abc import Mapping

from rfbench.errors import InputError
from rfbench.suite.suite import Compute

TRUE = ("1", "true", "yes", "on", "y", "t")
RANKS = ("WORLD_SIZE", "RANK", "LOCAL_RANK")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
OTHER_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # by which MPI's launchers say it
LAUNCH = "start several processes with `torchrun --nproc-per-node N -m rfbench run ...`"


def check_launcher(environment: Mapping[str, str], compute: Compute) -> int:
    """How many processes were launched; an ``InputError`` where the environment asks for what rfbench does not do."""
    for name, value in environment.items():
        if name.startswith("ACCELERATE_USE_") and name != "ACCELERATE_USE_CPU" and value.lower() in TRUE:
            raise InputError(
                f"{name} is {value!r}: the launcher asks for a way of sharing out a model that rfbench does not have; "
                "use `accelerate launch --multi_gpu` or torchrun"
            )
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    own = compute.precision if compute.precision in ("bf16", "fp16") else "no"
    if precision not in ("no", "", own):
        raise InputError(
            f"the launcher asks for mixed precision {precision!r} and the suite for {compute.precision!r}: use "
            f"--set compute.precision=... and `accelerate launch --mixed_precision no`"
        )
    back_end = environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if back_end not in ("no", ""):
        raise InputError(
            f"the launcher asks to compile with {back_end!r}: use --set compute.compile=true and `accelerate launch "
            "--dynamo_backend no`"
        )
    steps = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps not in ("1", ""):
        raise InputError(
            f"the launcher asks for gradients accumulated over {steps} steps: an algorithm's own settings say which "
            "images make an optimiser step"
        )
    return _launched(environment)


def _launched(environment: Mapping[str, str]) -> int:
    """The number of processes; an ``InputError`` where they could not find each other."""
    numbers: dict[str, int] = {}
    for name in (*RANKS, *OTHER_SIZES):
        if name in environment:
            if not environment[name].isdecimal():
                raise InputError(f"{name} is {environment[name]!r}: expected a number; {LAUNCH}")
            numbers[name] = int(environment[name])
    size = numbers.get("WORLD_SIZE", 1)
    for name in OTHER_SIZES:
        if numbers.get(name, 1) > 1 and "WORLD_SIZE" not in environment:
            raise InputError(f"{name} is {numbers[name]}, but nothing tells the processes of each other; {LAUNCH}")
    lacking = [name for name in (*RANKS, *ADDRESS) if name not in environment]
    if size > 1 and lacking:
        raise InputError(f"WORLD_SIZE is {size}, but there is no {', '.join(lacking)}; {LAUNCH}")
    if numbers.get("RANK", 0) >= size:
        raise InputError(f"RANK is {numbers['RANK']} and WORLD_SIZE is {size}: ranks count from 0; {LAUNCH}")
    return size
