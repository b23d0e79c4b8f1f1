"""The parts of a run, made and connected."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from rfbench.core.algorithm import Algorithm, check_answers, check_metrics
from rfbench.core.evaluation import Evaluator, Judge
from rfbench.core.learner import Learner
from rfbench.core.meter import Meter
from rfbench.core.policy import Policy, make_policy
from rfbench.core.processes import Processes, Runtime
from rfbench.core.prompts import epoch_prompts
from rfbench.core.reward import Reward
from rfbench.core.rollout import Rollout, RolloutSampler
from rfbench.errors import InputError, InterfaceError
from rfbench.planning.chunk_size import settled
from rfbench.planning.plan import Plan
from rfbench.planning.prompt_folder import make_prompt_folder
from rfbench.plugins.component import Component
from rfbench.records.format import CountersRecord, Role
from rfbench.running import failures
from rfbench.running.checkpoint import Checkpoint
from rfbench.running.plain_state import require_plain
from rfbench.running.reward_offsets import PromptOffsets

LOCAL_COUNTERS = ("denoiser_forwards", "denoiser_backwards")  # counted by each process for its share


@dataclass
class Run:
    """The parts of a run, made and connected; nothing in it touches the disk.

    ``policy`` is on the suite's sampler; ``learner.policy`` is the same on the training's, where that is another.
    """

    plan: Plan
    processes: Processes
    meter: Meter
    policy: Policy
    reward: Reward
    algorithm: Algorithm
    learner: Learner
    sampler: RolloutSampler
    evaluator: Evaluator
    reward_offsets: PromptOffsets | None

    def prompts(self, epoch: int) -> list[str]:
        """The training prompts of ``epoch``, from 0."""
        return epoch_prompts(self.plan.prompts["train"], self.plan.prompts_per_epoch, epoch, self.plan.seed)

    def rollout(self, epoch: int) -> Rollout:
        """Samples and scores the images of ``epoch``, from 0."""
        return self.sampler(epoch, self.prompts(epoch), self.plan.settings, self.algorithm.rollout_needs)

    def encode_ahead(self, epoch: int) -> None:
        """Encodes into the suite's folder every prompt that the run asks for from ``epoch`` on; frees the encoders.

        Where the suite has no such folder, encoders stay and encode prompts as they come.
        """
        if self.plan.suite.compute.prompt_folder is None:
            return
        epochs = (self.prompts(number) for number in range(epoch, self.plan.suite.epochs))
        with self.meter.phase("load"):
            evaluated = chain(*self.plan.evaluation_prompts.values())
            self.policy.encode_prompts.encode_ahead(dict.fromkeys(chain(evaluated, *epochs)))
            self.policy.model.release_encoders()

    def update(self, rollout: Rollout) -> dict[str, float]:
        """One epoch's update of the policy; the algorithm's metrics."""
        self.learner.begin(rollout)
        where, before = f"the algorithm {self.plan.algorithm.name!r}", rollout.versions()
        try:
            with self.meter.phase("update"):
                metrics = self.algorithm.update(rollout, self.learner)
            self.learner.end()
        except InterfaceError as error:
            raise InterfaceError(f"{where}: {error}") from error
        after = rollout.versions()
        changed = [name for name in before | after if before.get(name) != after.get(name)]
        if changed:
            raise InterfaceError(
                f"{where} changed rollout.{changed[0]} in its update at epoch {rollout.epoch + 1}; let it work on a "
                f"copy, such as rollout.{changed[0]}.clone()"
            )
        return check_metrics(metrics, f"{where} at epoch {rollout.epoch + 1}")

    def start_error(self) -> float | None:
        """The learner's, the largest of all processes; None where none was computed."""
        own = self.learner.start_error
        errors = torch.zeros(self.processes.size)
        errors[self.processes.rank] = -1 if own is None else own
        largest = float(self.processes.sum(errors).max())
        return None if largest < 0 else largest

    def counters(self) -> CountersRecord:
        """The work of all processes."""
        counters = self.meter.counters.as_dict()
        local = self.processes.sum(torch.tensor([counters[name] for name in LOCAL_COUNTERS]))
        return CountersRecord(**counters | dict(zip(LOCAL_COUNTERS, local.tolist(), strict=True)))

    def state(self) -> dict[str, Any]:
        undeclared = self.policy.snapshots().keys() - set(self.algorithm.snapshots)
        if undeclared:
            raise InterfaceError(
                f"the algorithm {self.plan.algorithm.name!r} took the snapshot {min(undeclared)!r}, which its "
                "`snapshots` do not name; a resumed run would be without it"
            )
        return {
            "optimizer": self.learner.state_dict(),
            "algorithm": require_plain(self.algorithm.state_dict(), f"the algorithm {self.plan.algorithm.name!r}"),
            "counters": self.counters().model_dump(),
            "seconds": self.meter.lap(),
            **({"snapshots": snapshots} if (snapshots := self.policy.snapshots()) else {}),
            **({"reward_offsets": self.reward_offsets.state_dict()} if self.reward_offsets else {}),
        }

    def restore(self, saved: Checkpoint) -> None:
        self.policy.load_state_dict(saved.weights)
        if self.algorithm.snapshots:
            self.policy.load_snapshots(saved.state["snapshots"])
        self.learner.load_state_dict(saved.state["optimizer"])
        self.algorithm.load_state_dict(saved.state["algorithm"])
        if self.reward_offsets is not None:
            self.reward_offsets.load_state_dict(saved.state["reward_offsets"])
        counters = saved.state["counters"]
        if not self.processes.is_main:  # the saved ones are everyone's: only one process goes on from them
            counters = counters | dict.fromkeys(LOCAL_COUNTERS, 0)
        vars(self.meter.counters).update(counters)
        self.meter.seconds.update(saved.state["seconds"])


def _role(reward: Component, trained: Component) -> Role:
    """What an evaluation's further reward is: held out, unless training sees it, as a term of a weighted sum."""
    seen = {part.name for part in trained.leaves()}
    return "diagnostic" if seen & {part.name for part in reward.leaves()} else "held-out"


def make_run(plan: Plan, processes: Processes) -> Run:
    """Loads the model and the rewards, and connects the parts; a chunk size left open is settled first."""
    plan = settled(plan, processes.device)
    suite, device = plan.suite, processes.device
    check_shares(plan, processes.size)
    prompt_folder = make_prompt_folder(plan, device)
    meter = Meter(device)
    runtime = Runtime(processes, meter, suite.compute.pairs_per_call, plan.seed)
    with meter.phase("load"), failures.loading(suite, meter):
        model = plan.model.make(device)
        reward = plan.reward.make(device)
        judges = [Judge(plan.reward.name, reward, "training")]
        judges += [Judge(part.name, part.make(device), _role(part, plan.reward)) for part in plan.held_out_rewards]
        policy = make_policy(suite, model, device, counters=meter.counters, seed=plan.seed)
        if prompt_folder is not None:
            policy.encode_prompts.store_in(prompt_folder, device)
        policy.encode_prompts.keep(chain(*plan.evaluation_prompts.values()))
        policy.encode_prompts.keep_if_few(plan.prompts["train"])
        training = policy.drawing_with(plan.sampler) if plan.settings.sampler else policy
    algorithm = plan.algorithm.make()
    check_answers(algorithm, f"the algorithm {plan.algorithm.name!r}")
    for name in algorithm.snapshots:
        policy.take_snapshot(name)
    require_plain(algorithm.state_dict(), f"the algorithm {plan.algorithm.name!r}")
    offsets = None
    if suite.reward_offsets is not None:
        offsets = PromptOffsets(suite.reward_offsets, training, reward, plan.reward.name, runtime)
    return Run(
        plan=plan,
        processes=processes,
        meter=meter,
        policy=policy,
        reward=reward,
        algorithm=algorithm,
        learner=Learner(training, plan.settings.optimizer, runtime),
        sampler=RolloutSampler(
            training,
            reward,
            plan.reward.name,
            runtime,
            reward_noise=suite.reward_noise,
            offsets=offsets,
        ),
        evaluator=Evaluator(suite.evaluation, plan.evaluation_prompts, judges, policy, runtime),
        reward_offsets=offsets,
    )


def check_shares(plan: Plan, processes: int) -> None:
    """Every process needs a prompt of its own, in training and in every evaluation set."""
    counts = {f"an epoch of {plan.label}": plan.prompts_per_epoch}
    counts |= {f"evaluation.sets.{name}": len(prompts) for name, prompts in plan.evaluation_prompts.items()}
    for what, count in counts.items():
        if count < processes:
            raise InputError(
                f"{what} has {count} prompts to share out among {processes} processes; use {count} or fewer"
            )
