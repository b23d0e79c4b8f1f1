"""What a launcher asks for by environment variables: done, or refused in one line."""

from __future__ import annotations

import pytest

from rfbench.errors import InputError
from rfbench.suite.launcher import check_launcher
from rfbench.suite.suite import Compute

TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environment", "compute", "processes"),
    [
        ({}, {}, 1),
        (TORCHRUN, {}, 2),
        (TORCHRUN | {"OMPI_COMM_WORLD_SIZE": "4"}, {}, 2),  # torchrun under mpirun: torchrun counts
        ({"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO"}, {}, 1),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, {"precision": "bf16"}, 1),  # both say the same
        ({"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": "false"}, {}, 1),
        ({"SLURM_NTASKS": "8"}, {}, 1),
    ],
)
def test_what_rfbench_does_is_accepted(environment: dict[str, str], compute: dict, processes: int) -> None:
    assert check_launcher(environment, Compute(**compute)) == processes


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "ACCELERATE_USE_DEEPSPEED is 'true'"),
        ({"ACCELERATE_USE_FSDP": "1"}, "a way of sharing out a model that rfbench does not have"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "ACCELERATE_USE_MEGATRON_LM"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "yes"}, "ACCELERATE_USE_PARALLELISM_CONFIG"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, "mixed precision 'fp8' and the suite for 'fp32'"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "--set compute.precision="),
        ({"ACCELERATE_DYNAMO_BACKEND": "inductor"}, "--set compute.compile=true"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "accumulated over 4 steps"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but there is no RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "2x"}, "WORLD_SIZE is '2x': expected a number"),
        ({"WORLD_SIZE": ""}, "expected a number"),
        (TORCHRUN | {"LOCAL_RANK": "one"}, "LOCAL_RANK is 'one'"),
        (TORCHRUN | {"RANK": "2"}, "RANK is 2 and WORLD_SIZE is 2"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE is 2, but nothing tells the processes of each other"),
        ({"PMI_SIZE": "3"}, "torchrun --nproc-per-node"),
    ],
)
def test_what_rfbench_does_not_do_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_launcher(environment, Compute())
