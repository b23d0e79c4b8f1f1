"""What the server of forked commands imports: whatever a command on the campaign's suites would."""

import rfbench.cli
import rfbench.inference.calibrate
import rfbench.inference.evaluate
import rfbench.inference.generate
import rfbench.models.stable_diffusion
import rfbench.prompts.files
import rfbench.report
import rfbench.rewards.jpeg
import rfbench.rewards.workers
import rfbench.running.trainer
import rfbench.sweeps.local
import rfbench.worlds.gaussian.model
import rfbench.worlds.gaussian.prompts
import rfbench.worlds.gaussian.reward
import rfbench.worlds.shapes.model
import tests.faults.moments
from rfbench.plugins import registry

for name in registry.names("algorithms"):
    registry.find("algorithms", name)
