"""The records of a judgement, ``<tier>.jsonl``, beside what they were made with, ``<tier>.json``.

A judgement that was cut off goes on where it stopped: a set counts as done when all of its measures are there, and only
if it was made with the settings of now.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path

from pydantic import ValidationError

from rfbench.core.processes import Processes
from rfbench.errors import InputError
from rfbench.files import write_atomically
from rfbench.planning.plan import Plan
from rfbench.records.format import FORMAT, EvaluationRecord, JudgementRecord
from rfbench.records.identity import differences
from rfbench.running import provenance
from rfbench.running.assembly import Run
from rfbench.running.folder import RunFolder
from rfbench.suite.suite import TierName


class Judgement:
    """One tier's judgement in a folder, of the base model or of a run."""

    def __init__(self, folder: RunFolder, tier: TierName, plan: Plan, processes: Processes) -> None:
        self._folder, self._tier = folder, tier
        planned = plan.planned(processes=1)  # their number does not matter for an evaluation
        self._record = JudgementRecord(
            format=FORMAT,
            suite=planned.suite,
            variant=planned.variant,
            plugins=planned.plugins,
            inputs=planned.inputs,
            **provenance.describe(processes.device),
            updated_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        self._records: list[EvaluationRecord] = folder.read(tier)
        if self._records:
            self._check_same()

    @property
    def path(self) -> Path:
        return self._folder.path / f"{self._tier}.jsonl"

    def done(self, epoch: int, run: Run) -> set[str]:
        """The sets of ``epoch`` whose records are all there."""
        found: dict[str, set[str]] = {}
        for record in self._records:
            if record.epoch == epoch:
                found.setdefault(record.evaluation_set, set()).add(record.measure)
        return {name for name, measures in found.items() if measures >= run.evaluator.measures(name)}

    def add(self, records: Collection[EvaluationRecord]) -> None:
        """Writes the records of one set, all of them or none, in place of what there was of that set and epoch."""
        new = {(record.evaluation_set, record.epoch) for record in records}
        kept = [record for record in self._records if (record.evaluation_set, record.epoch) not in new]
        self._records = [*kept, *records]
        write_atomically(self._description, self._record.to_json(indent=2).encode() + b"\n")
        self._folder.replace(self._tier, self._records)

    @property
    def _description(self) -> Path:
        return self._folder.path / f"{self._tier}.json"

    def _check_same(self) -> None:
        remedy = f"move {self.path} away, or judge with the settings that it was made with"
        try:
            earlier = JudgementRecord.model_validate_json(self._description.read_bytes())
        except (OSError, ValidationError):
            raise InputError(
                f"{self.path} does not say what it was made with: {self._description.name} is missing beside it, or is "
                f"not readable; {remedy}"
            ) from None
        different = differences(earlier, self._record, "resume")
        if different:
            lines = "; ".join(map(str, different[:5]))
            raise InputError(f"{self.path} was made with other settings: {lines}. {remedy[0].upper()}{remedy[1:]}")
