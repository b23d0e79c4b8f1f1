"""One run: sample -> score -> update -> evaluate -> record -> checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rfbench.core.processes import Processes
from rfbench.core.rollout import Rollout, group_means, spread
from rfbench.errors import InputError, InterfaceError, RfbenchError
from rfbench.planning.chunk_size import settled, with_chunk_sizes
from rfbench.planning.compatibility import rounding_remark
from rfbench.planning.compile_cost import compile_remark
from rfbench.planning.device import check_device
from rfbench.planning.plan import Plan
from rfbench.planning.prompt_counts import count_prompts, remarks
from rfbench.records.format import FORMAT, HEAD, EpochRecord, RunRecord, Status
from rfbench.records.sink import Harmless, Sink, check_sinks
from rfbench.running import checkpoint, failures, grids, provenance, weights
from rfbench.running.assembly import Run, check_shares, make_run
from rfbench.running.checkpoint import Checkpoint
from rfbench.running.folder import RunFolder, run_path
from rfbench.running.progress import Progress
from rfbench.running.resume import check_resumable, check_same_experiment
from rfbench.running.stopping import StopRequest
from rfbench.running.trackers import Trackers, tracking

RESTART_PATIENCE = 60.0  # seconds for which a job that was started again waits for its former self to end


def train(
    plan: Plan,
    root: Path,
    progress: Progress,
    *,
    sinks: Sequence[Sink] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Runs ``plan`` to its end in ``root/<suite>/<label>/seed-<n>/`` and returns that folder.

    A finished run is left as it is unless ``overwrite``; an unfinished one needs ``resume`` or ``overwrite``. The main
    process tells ``sinks`` of every record, after the run's files, trackers and display.
    """
    check_sinks(sinks)
    processes = Processes(plan.suite.compute)
    check_shares(plan, processes.size)
    patience = RESTART_PATIENCE if provenance.restarts() else 0.0
    path = run_path(root.absolute(), plan.suite.name, plan.label, plan.seed)  # a plugin may go to another folder
    with processes.together():
        folder = RunFolder(path, writer=processes.is_main, patience=patience)
        earlier = None if overwrite else folder.read_run()
    found = "none" if earlier is None else f"{earlier.status} at epoch {earlier.epoch}"
    processes.agree(f"{path}/run.json", found)
    if earlier is not None:
        planned = plan.planned(processes.size)
        if earlier.status == "finished":
            check_same_experiment(earlier, planned, folder.path)
            progress.note(f"{folder.path} is finished already; --overwrite runs it again")
            return folder.path
        if not resume:
            raise InputError(
                f"{folder.path} holds a run that is {earlier.status} at epoch {earlier.epoch} of "
                f"{earlier.epochs}; --resume goes on with it, --overwrite starts over"
            )
        check_resumable(earlier, planned, folder.path)
        plan = _in_the_same_chunks(plan, earlier)
    plan = settled(plan, processes.device)
    check_device(plan, processes.device)
    if processes.device.type == "cpu" and (remark := compile_remark(plan)) is not None:
        progress.note(remark)
    with tracking(plan, folder, processes, progress.note) as trackers:
        run = make_run(plan, processes)
        dimensions = math.prod(run.policy.model.latent_shape)
        if remark := rounding_remark(run.algorithm, plan.label, plan.suite.compute.precision, dimensions):
            progress.note(remark)
        if processes.is_main and overwrite:  # only now: a run that cannot begin removes none
            folder.clear()
        processes.wait()
        _Training(run, folder, progress, trackers, sinks).go()
    processes.close()
    return folder.path


def _in_the_same_chunks(plan: Plan, earlier: RunRecord) -> Plan:
    """Chunk sizes left open are those that the run began with: it then ends with the same bytes."""
    asked, began = plan.suite.compute, earlier.suite["compute"]
    return with_chunk_sizes(
        plan,
        began["chunk_size"] if asked.chunk_size == "auto" else asked.chunk_size,
        began["decode_chunk_size"] if asked.decode_chunk_size is None else asked.decode_chunk_size,
    )


class _Training:
    """The loop of a run and what it leaves in the folder."""

    def __init__(
        self, run: Run, folder: RunFolder, progress: Progress, trackers: Trackers, sinks: Sequence[Sink]
    ) -> None:
        self._run, self._folder, self._progress, self._trackers = run, folder, progress, trackers
        mine = (folder, trackers, progress, *(Harmless(sink, progress.note) for sink in sinks))
        self._sinks: Sequence[Sink] = mine if run.processes.is_main else (progress,)
        self._epoch = 0  # completed epochs
        self._counters = run.counters()
        self._reference = run.policy.reference_sums()
        self._started_at = _now()
        plan, model = run.plan, run.policy.model
        self._planned = plan.planned(run.processes.size)
        self._owner = checkpoint.Owner.planned(self._planned, plan.seed)
        self._files = {need.setting: need.source.origin() for need in plan.needs()}
        self._made_with = provenance.describe(run.processes.device)
        self._prompts = count_prompts(plan.suite, plan.prompts, plan.evaluation_prompts, model.truncates)

    def go(self) -> None:
        run = self._run
        resumed = self._restore()
        self._write_run("running")
        for remark in (*run.plan.remarks(), *remarks(self._prompts)):
            self._progress.note(remark)
        with self._guarded() as stop, self._progress.running(run.plan, run.meter, self._epoch, self._folder.path):
            if run.plan.suite.compute.prompt_folder is not None:
                self._progress.note("encoding the run's prompts, after which the text encoders take no memory")
            run.encode_ahead(self._epoch)
            if not resumed:
                self._arrive()
            while self._epoch < run.plan.suite.epochs:
                self._train_epoch()
                stopping = run.processes.any(stop.made)
                self._arrive(stopping)
                if stopping and self._epoch < run.plan.suite.epochs:
                    raise KeyboardInterrupt
            if run.processes.is_main and run.plan.suite.compute.export:
                weights.save(run.policy, self._folder.path)
        if run.meter.counters.optimizer_steps == 0:
            self._progress.note(
                f"{run.plan.label} took no optimiser step in {run.plan.suite.epochs} epochs: its policy is the base "
                "model still"
            )
        self._write_run("finished")

    def _arrive(self, stopping: bool = False) -> None:
        """What is due after a number of completed epochs: evaluation, then a checkpoint that includes it.

        A run that stops here writes its checkpoint whether one is due or not.
        """
        suite, last = self._run.plan.suite, self._epoch == self._run.plan.suite.epochs
        evaluates = last or self._epoch % suite.evaluation.every == 0
        if evaluates:
            self._evaluate()
        if last or stopping or self._epoch % suite.compute.checkpoint_every == 0:
            if not evaluates:  # which has shown that the weights work: a broken checkpoint must not replace a good one
                self._run.evaluator.probe(self._epoch)
            self._save()
        self._write_run("running")

    def _restore(self) -> bool:
        """Continues from the newest checkpoint; False where there is none, and what was recorded is cleared."""
        run, folder = self._run, self._folder
        with run.processes.together():
            saved = checkpoint.load_latest(folder.checkpoints, run.processes.device, self._owner)
        found = f"epoch {saved.epoch}" if saved else "none"
        run.processes.agree(f"newest checkpoint in {folder.checkpoints}", found)
        if saved is None:
            if run.processes.is_main:
                folder.clear()
            return False
        run.restore(saved)
        self._counters = run.counters()
        if run.processes.is_main:
            checkpoint.keep_latest(folder.checkpoints)  # a crash may have left the one before it
            folder.truncate(saved.record_sizes, saved.record_sums)
            self._trackers.replay(folder)
        self._epoch = saved.epoch
        return True

    def _train_epoch(self) -> None:
        run, before = self._run, self._run.meter.lap()
        rollout = run.rollout(self._epoch)
        metrics = run.update(rollout)
        start_error = run.start_error()
        rounded = _rounded_start(run, start_error)
        if rounded is not None and self._epoch == 0:
            raise InputError(f"{rounded.problem}. Start over (--overwrite) with {rounded.remedy}")
        self._epoch += 1
        self._counters = run.counters()
        spent = {name: total - before[name] for name, total in run.meter.lap().items()}
        record = EpochRecord(
            epoch=self._epoch,
            reward_mean=float(rollout.rewards.mean()),
            reward_std=float(rollout.rewards.std(correction=0)),
            **_spread(rollout),
            reward_offset_mean=None if rollout.offsets is None else float(rollout.offsets.mean()),
            truncated_prompts=sum(map(run.policy.model.truncates, rollout.prompts)),
            **self._counters.model_dump(),
            start_error=start_error,
            grad_norm=run.learner.grad_norm,
            **{f"{name}_seconds": round(seconds, 4) for name, seconds in spent.items()},
            **{f"{HEAD}{head}": float(scores.mean()) for head, scores in rollout.reward_heads.items()},
            **metrics,
        )
        for sink in self._sinks:
            sink.on_epoch(record)
        if dropped := run.learner.dropped_steps:
            self._progress.note(
                f"epoch {self._epoch}: {dropped} of {run.learner.steps} optimiser steps were dropped, since their fp16 "
                f"gradients overflowed; the loss scale is {run.learner.loss_scale:g} now"
            )
        if not run.learner.had_gradient and run.learner.grad_norm is not None:
            why = "every prompt's rewards are equal" if not record.reward_std_within_prompt else "no loss had one"
            self._progress.note(f"epoch {self._epoch}: nothing was learned, since there was no gradient: {why}")
        if rounded is not None:
            self._progress.note(f"epoch {self._epoch}: {rounded.problem}; use {rounded.remedy}")

    def _evaluate(self) -> None:
        run = self._run
        if not np.array_equal(run.policy.reference_sums(), self._reference, equal_nan=True):
            raise InterfaceError(
                f"the algorithm {run.plan.algorithm.name!r} changed the frozen reference before epoch {self._epoch} "
                "ended: every KL would be wrong; let it write to learner.policy.trainable() alone"
            )
        results = run.evaluator(self._epoch)
        records = run.evaluator.records(results, self._epoch)
        if run.processes.is_main:
            grids.save(self._folder.samples, self._epoch, results, run.plan.evaluation_prompts)
        for sink in self._sinks:
            sink.on_evaluation(records)

    def _save(self) -> None:
        run, folder = self._run, self._folder
        state = run.state()
        if run.processes.is_main:
            saved = Checkpoint(self._epoch, run.policy.state_dict(), state, folder.sizes(), folder.sums())
            checkpoint.save(folder.checkpoints, saved, self._owner)

    @contextmanager
    def _guarded(self) -> Iterator[StopRequest]:
        """Whatever ends the run, its status says so; a request to stop counts as an interruption."""
        with StopRequest() as stop:
            try:
                yield stop
            except BaseException as error:
                stop.settle()
                self._write_end(error)
                raise

    def _write_end(self, error: BaseException) -> None:
        """Records what ended the run; raises an explanation where there is one."""
        if isinstance(error, KeyboardInterrupt):
            if not self._failed():
                self._write_run("interrupted")
        elif isinstance(error, SystemExit):
            said = f"a plugin or library called sys.exit({error.code!r}) in epoch {self._epoch + 1}; it must not"
            self._write_failure(said)
            raise InterfaceError(f"{said}\nThe last good checkpoint is in {self._folder.path}") from error
        elif isinstance(error, Exception):
            peak = self._run.meter.peak_memory_bytes()
            known = (
                error
                if isinstance(error, RfbenchError)
                else failures.explain(error, self._run.plan.suite, f"in epoch {self._epoch + 1}", peak)
            )
            with suppress(OSError):  # a full disk takes no status either
                self._write_failure(str(known) if known else f"{type(error).__name__}: {error}")
            if known is None:
                return
            kept = f"The records and the last good checkpoint are in {self._folder.path}"
            raise type(known)(f"{known}\n{kept}") from error

    def _failed(self) -> bool:
        """Whether another process of this run has failed: what ends this one follows from that."""
        found = self._folder.read_run()
        return found is not None and found.status == "failed"

    def _write_failure(self, error: str) -> None:
        processes = self._run.processes
        if not processes.is_main:
            self._folder.fail(f"process {processes.rank}: {error}", processes.rank)
        elif not self._failed():
            self._write_run("failed", error)

    def _write_run(self, status: Status, error: str | None = None) -> None:
        run, plan = self._run, self._run.plan
        if not run.processes.is_main:
            return
        record = RunRecord(
            format=FORMAT,
            status=status,
            error=error,
            suite=self._planned.suite,
            suite_hash=self._owner.suite_hash,
            variant=plan.label,
            variant_hash=self._owner.variant_hash,
            seed=plan.seed,
            epoch=self._epoch,
            epochs=plan.suite.epochs,
            counters=self._counters,
            phase_seconds={name: round(seconds, 3) for name, seconds in run.meter.lap().items()},
            peak_memory_bytes=run.meter.peak_memory_bytes(),
            trained_parameters=sum(p.numel() for p in run.policy.trainable().values()),
            processes=run.processes.size,
            prompts=self._prompts,
            rewards=run.evaluator.rewards(),
            plugins=self._planned.plugins,
            inputs=self._planned.inputs,
            files=self._files,
            **self._made_with,
            started_at=self._started_at,
            updated_at=_now(),
        )
        self._folder.write_run(record)
        if status != "running":
            for sink in self._sinks:
                sink.on_end(record)


class _RoundedStart(NamedTuple):
    problem: str
    remedy: str


def _rounded_start(run: Run, start_error: float | None) -> _RoundedStart | None:
    """What to say where an epoch's ratios start farther from 1 than the objective bears."""
    algorithm, label, precision = run.algorithm, run.plan.label, run.plan.suite.compute.precision
    largest, clip_range = algorithm.largest_start_error, algorithm.clip_range
    if largest is None or start_error is None or start_error <= largest:
        return None
    bears, decides, remedies = f"{label} bears {largest:.1e} at most", "what is learned", []
    if precision != "fp32":
        remedies.append("--set compute.precision=fp32")
    if clip_range is not None:
        bears, decides = f"with its clip range of {clip_range} {bears}", "what is clipped"
        remedies.append(f"a clip range above {start_error * clip_range / largest:.1e}")
    return _RoundedStart(
        f"before the first update a log-prob is already {start_error:.1e} away from its sampled value; {bears}, beyond "
        f"which rounding in {precision} decides {decides}",
        ", or ".join(remedies) or f"an algorithm whose largest_start_error is above {start_error:.1e}",
    )


def _spread(rollout: Rollout) -> dict[str, float | None]:
    """How far the rewards lie apart within a prompt, and the prompts from each other; None for what cannot be known.

    ``reward_std_within_prompt`` is the root mean square deviation from the mean of a prompt's few images; the other two
    are estimates for as many images as one likes.
    """
    prompts = rollout.prompt_ids()
    estimated = spread(rollout.rewards, prompts)
    deviations = rollout.rewards - group_means(rollout.rewards, prompts)
    return {
        "reward_std_within_prompt": None if estimated.within is None else float(deviations.square().mean().sqrt()),
        "reward_std_between_prompts": estimated.between,
        "reward_between_over_within": estimated.ratio,
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
