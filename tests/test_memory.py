"""PRDP's memory does not grow with the number of denoising steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import resource, sys, torch
torch.set_num_threads(1)
from rfbench.planning.plan import make_plan
from rfbench.core.processes import Processes
from rfbench.suite.loading import load_suite
from rfbench.running.assembly import make_run

settings = [f"sampler.num_steps={sys.argv[2]}", "algorithms.prdp.images_per_prompt=16", "compute.chunk_size=32"]
plan = make_plan(load_suite(sys.argv[1], [*settings, "budget.reward_queries_per_epoch=32"]), "prdp", 0)
run = make_run(plan, Processes(plan.suite.compute))
run.evaluator(0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run.update(run.rollout(0))
print([before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])
"""


def test_peak_memory_with_many_steps_is_that_with_few(suite_file: Path) -> None:
    """An epoch's peak, of the whole process, with 12 steps (11 carry a gradient) and with 3 (2 do)."""
    peaks, growths = [], []
    for steps in (3, 12):
        command = [sys.executable, "-c", PROGRAM, str(suite_file), str(steps)]
        before, peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        peaks.append(peak)
        growths.append(peak - before)
    assert peaks[1] <= 1.1 * peaks[0]
    assert growths[1] <= 2 * growths[0]  # of the update alone: one graph for 11 steps would need about five times
