"""What the server of forked commands imports: whatever a command on the campaign's suites would."""

from __future__ import annotations

from importlib import import_module

from rfbench.plugins import registry

for module in (
    "rfbench.cli",
    "rfbench.doctor.diagnosis",
    "rfbench.inference.calibrate",
    "rfbench.inference.evaluate",
    "rfbench.inference.generate",
    "rfbench.models.stable_diffusion",
    "rfbench.prompts.files",
    "rfbench.report",
    "rfbench.rewards.jpeg",
    "rfbench.rewards.workers",
    "rfbench.running.trainer",
    "rfbench.sweeps.local",
    "rfbench.worlds.gaussian.model",
    "rfbench.worlds.gaussian.prompts",
    "rfbench.worlds.gaussian.reward",
    "tests.faults.clock",
    "tests.faults.damage",
    "tests.faults.disk",
    "tests.faults.moments",
):
    import_module(module)
for name in registry.names("algorithms"):
    registry.find("algorithms", name)
