"""The base model's calibration beside the paper's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rfbench.records.format import EvaluationRecord
from rfbench.report.analysis.paper import base_row
from rfbench.suite.suite import Suite

KL = ("kl", "kl_per_dimension")


class Row(NamedTuple):
    """One measure on one evaluation set.

    Attributes:
        paper: the paper's base model there; None where it gives no number.
        between_over_within: of a reward, its standard deviation between prompts over that between the images of one
            prompt; None where the latter is unknown.
    """

    evaluation_set: str
    measure: str
    images: int
    measured: float
    standard_error: float | None
    paper: float | None
    between_over_within: float | None

    @property
    def gap(self) -> float | None:
        """Measured less published."""
        return None if self.paper is None else self.measured - self.paper


def _ratio(record: EvaluationRecord) -> float | None:
    between, within = record.std_between_prompts, record.std_within_prompt
    return between / within if record.role != "diagnostic" and within and between is not None else None


def rows(records: Sequence[EvaluationRecord], suite: Suite) -> list[Row]:
    """The calibration's table: what the paper gives too, then the others, without a base model's KL from itself."""
    paper = base_row(suite.paper.suite, suite.paper.reward) if suite.paper else {}
    table = [
        Row(
            record.evaluation_set,
            record.measure,
            record.images,
            record.mean,
            record.standard_error,
            paper.get((record.evaluation_set, record.measure)),
            _ratio(record),
        )
        for record in records
        if record.measure not in KL
    ]
    return sorted(table, key=lambda row: row.paper is None)
