"""Plugins that give NaN, other shapes and kinds, that raise, exit, hang, or change what is not theirs."""

from __future__ import annotations

import signal
import time

from tests.faults import runs
from tests.faults.commands import Running
from tests.faults.contents import content, require_same
from tests.faults.trial import Broken, Trial, require_proper

REWARD = """
import os, random, sys, time
import numpy, torch
from rfbench.worlds.gaussian.reward import GaussianLinear

class Odd(GaussianLinear):
    "The world's own reward, until its {call}th call."

    calls = 0

    def __call__(self, images, prompts):
        scores = super().__call__(images, prompts)
        Odd.calls += 1
        if Odd.calls != {call}:
            return scores
        {harm}
"""
ALGORITHM = """
import os, random, sys, time
import numpy, torch
from rfbench_algorithms.ddpo import DDPO

class Odd(DDPO):
    "DDPO, until epoch {call}."

    kept = {{}}

    def update(self, rollout, learner):
        if rollout.epoch + 1 != {call}:
            return super().update(rollout, learner)
        metrics = super().update(rollout, learner)
        {harm}

    def state_dict(self):
        return super().state_dict() | self.kept
"""
REFUSED = {  # what a reward does, and a word of the message
    "NaN": ("scores[0] = float('nan'); return scores", "nan"),
    "infinity": ("return scores / 0", "inf"),
    "another shape": ("return scores[:, None]", "shape"),
    "every image against every prompt": ("return scores[:, None] + scores", "shape"),
    "too few": ("return scores[1:]", "shape"),
    "a list": ("return scores.tolist()", "must return a torch.Tensor"),
    "an array": ("return scores.numpy()", "must return a torch.Tensor"),
    "nothing": ("return None", "must return a torch.Tensor"),
    "complex numbers": ("return scores.to(torch.complex64)", "complex"),
    "an exception": ("raise KeyError('no such prompt')", "KeyError"),
    "an error without words": ("assert False", "AssertionError"),
    "sys.exit(0)": ("sys.exit(0)", "sys.exit(0)"),
    "changed images": ("images.zero_(); return scores", "changed the images"),
    "images changed through an array": ("images.numpy()[:] = 0; return scores", "changed the images"),
}
HARMLESS = {
    "drawn from the global generators": "torch.rand(5); random.random(); numpy.random.rand(); return scores",
    "seeds set": "torch.manual_seed(5); random.seed(5); numpy.random.seed(5); return scores",
    "gradients switched off": "torch.set_grad_enabled(False); return scores",
    "gradients switched on": "torch.set_grad_enabled(True); return scores",
    "double precision": "return scores.double()",
    "with a gradient": "return scores.clone().requires_grad_() * 1",
    "much printed": "print('x' * 100000); print('[/red]', file=sys.stderr); return scores",
    "closed output": "sys.stdout.close(); return scores",
    "a changed folder": "os.chdir('/'); return scores",
}
ALGORITHM_REFUSED = {
    "NaN in a metric": ("return {'odd': float('nan')}", "odd"),
    "a metric of rfbench's own": ("return {'reward_mean': 99.0}", "reward_mean"),
    "a tensor for a metric": ("return {'odd': torch.ones(1)}", "odd"),
    "no metrics": ("return None", "must return a dict"),
    "a state that is not plain": ("self.kept = {'best': numpy.zeros(1)}; return metrics", "numpy.ndarray"),
    "rewards changed": ("rollout.rewards.mul_(100); return metrics", "changed rollout.rewards"),
    "rewards changed through an array": (
        "rollout.rewards.numpy()[:] *= 100; return metrics",
        "changed rollout.rewards",
    ),
    "log-probs replaced": ("rollout.log_probs = rollout.log_probs * 2; return metrics", "changed rollout.log_probs"),
    "the reference changed": (
        "next(learner.policy.frozen_copy.parameters()).data.add_(0.1); return metrics",
        "changed the frozen reference",
    ),
    "NaN in the weights": (
        "next(iter(learner.policy.trainable().values())).data.fill_(float('nan')); return metrics",
        "not finite",
    ),
    "a gradient left over": (
        "next(iter(learner.policy.trainable().values())).grad = torch.ones(()) * "
        "next(iter(learner.policy.trainable().values())).detach(); return metrics",
        "left over",
    ),
    "an exception": ("raise ZeroDivisionError('division by zero')", "ZeroDivisionError"),
    "sys.exit(0)": ("sys.exit(0)", "sys.exit(0)"),
}
LAST_CALL = 6  # of a run's three epochs and three evaluations


def refused(trial: Trial) -> None:
    """What cannot be right ends the run, which says who did what, and when; the record says so too."""
    of_rewards = trial.random.random() < 0.5
    kinds, template = (REFUSED, REWARD) if of_rewards else (ALGORITHM_REFUSED, ALGORITHM)
    name = trial.random.choice(list(kinds))
    harm, word = kinds[name]
    call = trial.random.randint(1, LAST_CALL if of_rewards else 3)
    trial.steps.append(f"{'a reward' if of_rewards else 'an algorithm'}: {name}, call {call}")
    raises = harm.startswith(("raise", "assert"))
    result = trial.rfbench_with_plugin(template.format(call=call, harm=harm), of_rewards, traceback=raises)
    if result.code == 0:
        raise Broken(f"it was taken for good: {result.words[-300:]}")
    if word not in result.said:
        raise Broken(f"{word!r} is not said: {result.words[-400:]}")
    (record,) = runs.records(trial.folder / "out")
    if record.status != "failed":
        raise Broken("the record does not say that the run failed")


def harmless(trial: Trial) -> None:
    """What changes no number changes nothing."""
    training = runs.gaussian("ddpo")
    name = trial.random.choice(list(HARMLESS))
    call = trial.random.randint(1, LAST_CALL)
    trial.steps.append(f"a reward: {name}, call {call}")
    result = trial.rfbench_with_plugin(REWARD.format(call=call, harm=HARMLESS[name]), of_rewards=True)
    if result.code != 0:
        raise Broken(f"exit code {result.code}: {result.words[-300:]}")
    expected = runs.whole(trial, training)
    found = training.folder(trial.folder / "out")
    for file in ("metrics.jsonl", "evals.jsonl"):
        if content(found / file).replace('"odd"', '"gaussian-linear"') != content(expected / file):
            raise Broken(f"{file}: not what the world's own reward leaves")
    require_same(found / "weights", expected / "weights")


def hangs(trial: Trial) -> None:
    """A reward that never answers: in worker threads it is given up; anywhere, the run can be ended."""
    call = trial.random.randint(1, LAST_CALL)
    plugin = REWARD.format(call=call, harm="time.sleep(10000)")
    if trial.random.random() < 0.5:
        limits = ["reward={name='workers', reward={name='odd'}, timeout_seconds=0.3, retries=0}"]
        result = trial.rfbench_with_plugin(plugin, True, *limits)
        if result.code == 0 or "no answer within 0.3 s" not in result.words:
            raise Broken(f"exit code {result.code}: {result.words[-300:]}")
        return
    running = Running(trial.plugin_command(plugin, True), trial.folder)
    time.sleep(3)
    number = trial.random.choice([signal.SIGINT, signal.SIGKILL])
    running.send(number)
    if not running.ended(within=60):  # a first Ctrl-C may have met code that swallows it
        running.send(number)
    require_proper(running.end(), signal.SIGKILL)
    (trial.folder / "odd.py").write_text(plugin.replace("time.sleep(10000)", "return scores"))
    if not runs.records(trial.folder / "out"):
        return
    result = trial.rfbench([*trial.plugin_command(None, True), "--resume"])
    if result.code != 2 or "odd" not in result.words:  # other code is another reward: a resume refuses it
        raise Broken(f"other code went on: {result.words[-300:]}")
