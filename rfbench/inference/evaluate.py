"""Judging a policy apart from its training: the base model, or a run's last checkpoint, at a tier of evaluation.

The quick tier is what a run evaluates as it goes; the final tier is what its results are reported on. Both use the
evaluation's own seed, and so do all runs: their numbers are paired, prompt by prompt and noise by noise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import torch

from rfbench.core.processes import Processes
from rfbench.errors import InputError
from rfbench.inference.judged import Judgement
from rfbench.planning.plan import Plan, make_plan
from rfbench.records.format import EvaluationRecord
from rfbench.running import checkpoint
from rfbench.running.assembly import Run, make_run
from rfbench.running.checkpoint import Checkpoint, Owner
from rfbench.running.folder import RunFolder
from rfbench.running.progress import Progress
from rfbench.suite.loading import suite_of
from rfbench.suite.suite import TierName


def judge(
    plan: Plan,
    processes: Processes,
    saved: Checkpoint | None = None,
    *,
    done: Callable[[Run], Collection[str]] | None = None,
) -> Iterator[list[EvaluationRecord]]:
    """Evaluates the base model, or the policy of a checkpoint: the records of one evaluation set at a time.

    The records are those of ``evals.jsonl``. ``done`` names sets that are not wanted, once the parts are loaded. At the
    final tier, the plan is that of the suite's tier:

    >>> plan = make_plan(suite.at_tier("final"), "prdp", seed=0)  # any algorithm, for the base model
    >>> for records in judge(plan, processes):
    ...     print({record.measure: record.mean for record in records})

    Every process of ``processes`` must go through all sets; each gets the same records.
    """
    run, epoch = make_run(plan, processes), 0
    if saved is not None:
        epoch = saved.epoch
        run.policy.load_state_dict(saved.weights)
        run.meter.counters.reward_queries = saved.state["counters"]["reward_queries"]
    run.encode_ahead(plan.suite.epochs)
    skipped = done(run) if done else ()
    for name in plan.suite.evaluation.sets:
        if name not in skipped:
            yield run.evaluator.records([run.evaluator.evaluate(name, epoch)], epoch)


def judge_into(
    folder: RunFolder,
    tier: TierName,
    plan: Plan,
    processes: Processes,
    progress: Progress,
    saved: Checkpoint | None = None,
) -> Path:
    """Judges set by set into ``<tier>.jsonl``, and returns that file; sets that it holds already are kept."""
    judgement = Judgement(folder, tier, plan, processes)
    processes.wait()
    for records in judge(plan, processes, saved, done=lambda run: judgement.done(saved.epoch if saved else 0, run)):
        if processes.is_main:
            judgement.add(records)
        progress.on_evaluation(records)
    processes.close()
    return judgement.path


def evaluate_run(path: Path, tier: TierName, progress: Progress, overrides: Sequence[str] = ()) -> Path:
    """Judges the last checkpoint of the run in ``path``, and returns the file of its records, ``<tier>.jsonl`` there.

    The suite is the run's own, with ``overrides`` for what another machine needs, such as paths and chunk sizes. The
    same command goes on where it was stopped; settings that change what is measured are refused.
    """
    record = RunFolder(path, writer=False).require_run()
    suite = suite_of(record.suite, overrides, f"of {path}").at_tier(tier)
    plan = make_plan(suite, record.variant, record.seed)
    processes = Processes(suite.compute)
    folder = RunFolder(path, writer=processes.is_main)
    saved = checkpoint.load_latest(folder.checkpoints, torch.device("cpu"), Owner.recorded(record))
    if saved is None:
        raise InputError(f"{path} holds no checkpoint; `rfbench run` with --resume, or --overwrite, makes one")
    return judge_into(folder, tier, plan, processes, progress, saved)
