"""Trials of an algorithm's settings on a suite: the same search for every algorithm, the user's own included.

A trial is an ordinary run of a variant, at a point of a scrambled Sobol sequence (Joe and Kuo 2008, by
`scipy.stats.qmc`) over the ranges that the algorithm's Config declares and the learning rate's. Trials are judged by
the training reward on a set of unseen prompts that serves tuning alone: the suite's own unseen prompts, drawn with
another seed. The seed of their training is not one of a comparison's. So nothing that a comparison reports was
selected on.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from scipy.stats import qmc

from rfbench.errors import InputError
from rfbench.planning.plan import make_plan
from rfbench.plugins import registry
from rfbench.running.folder import RunFolder
from rfbench.suite import toml
from rfbench.suite.loading import apply_override, load_suite
from rfbench.suite.suite import Suite
from rfbench.sweeps.jobs import Job, make_jobs

SEED = 100  # of the trials' training, where comparisons begin at 0; and how far the tuning prompts' seed is off
SET = "tuning"
LEARNING_RATE = "optimizer.learning_rate"


@dataclass(frozen=True)
class SearchRange:
    """Where a setting may lie."""

    low: float
    high: float
    scale: str = "log"
    integer: bool = False

    def at(self, share: float) -> float:
        """The value at ``share`` of the range, from 0 to 1: three digits, or an integer."""
        if self.scale == "log":
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + share * (self.high - self.low)
        return round(value) if self.integer else float(f"{value:.3g}")


@dataclass(frozen=True)
class Trial:
    """One point of the search.

    Attributes:
        settings: values by their place in the algorithm's table.
    """

    job: Job
    settings: dict[str, float]

    def gain(self) -> float | None:
        """The training reward on the tuning prompts, mean over the evaluations after the start, above the start's.

        None before the run is finished.
        """
        if not self.job.finished:
            return None
        records = [
            (record.epoch, record.mean)
            for record in RunFolder(self.job.folder, writer=False).read("evals")
            if record.evaluation_set == SET and record.measure == self.job.plan.reward.name
        ]
        start = [mean for epoch, mean in records if epoch == 0]
        later = [mean for epoch, mean in records if epoch > 0]
        return sum(later) / len(later) - start[0]


@dataclass(frozen=True)
class Search:
    """The trials of one algorithm on one suite.

    Attributes:
        ranges: what is free, by its place in the algorithm's table.
        prompts: the tuning prompts.
        shared_prompts: how many of them are also in the suite's own evaluation set of unseen prompts.
    """

    ranges: dict[str, SearchRange]
    prompts: list[str]
    shared_prompts: int
    trials: list[Trial]

    def best(self) -> Trial | None:
        """The finished trial of the largest gain."""
        finished = [(gain, trial) for trial in self.trials if (gain := trial.gain()) is not None]
        return max(finished, key=lambda pair: pair[0])[1] if finished else None


def make_search(
    name: str,
    algorithm: str,
    num_trials: int,
    out: Path,
    *,
    learning_rates: tuple[float, float],
    overrides: Sequence[str] = (),
    plugins: Sequence[Path] = (),
) -> Search:
    """The trials of ``algorithm`` on the suite ``name``, each checked before the first begins.

    Args:
        learning_rates: the range of the learning rate, on a log scale; the same for every algorithm.
        overrides: of the suite. What they give of the algorithm's own settings is not searched.
    """
    suite = load_suite(name, overrides)
    ranges = _ranges(suite, algorithm, learning_rates, _fixed(algorithm, overrides))
    own = make_plan(suite, algorithm, seed=SEED).evaluation_prompts[_unseen_set(suite)]
    tuning = [*overrides, *_tuning_overrides(suite)]
    like = "like" if algorithm in suite.algorithms else "algorithm"
    trials = []
    for number, settings in enumerate(points(list(ranges.values()), num_trials)):
        at = dict(zip(ranges, settings, strict=True))
        variant = f"{algorithm}-trial-{number:02}"
        table = [f"algorithms.{variant}.{like}={algorithm}"]
        table += [f"algorithms.{variant}.{place}={toml.inline(value)}" for place, value in at.items()]
        try:
            jobs = make_jobs([name], [variant], [SEED], out, overrides=[*tuning, *table], plugins=plugins)
        except InputError as error:
            shown = ", ".join(f"{place}={toml.inline(value)}" for place, value in at.items())
            raise InputError(
                f"trial {number} ({shown}): {str(error).replace(variant, algorithm)}; what --set gives is not searched"
            ) from None
        trials.append(Trial(jobs[0], at))
    prompts = trials[0].job.plan.evaluation_prompts[SET]
    return Search(ranges, prompts, len(set(own) & set(prompts)), trials)


def points(ranges: Sequence[SearchRange], count: int) -> list[list[float]]:
    """The first ``count`` points of a scrambled Sobol sequence in ``ranges``; always the same ones."""
    sequence = qmc.Sobol(len(ranges), scramble=True, rng=SEED).random_base2(max(count - 1, 0).bit_length())
    return [[r.at(float(share)) for r, share in zip(ranges, point, strict=True)] for point in sequence[:count]]


def declared_ranges(config: type[BaseModel]) -> dict[str, SearchRange]:
    """The ranges that a ``Config`` declares, by field; an ``InputError`` for one that cannot be searched."""
    ranges = {}
    for name, field in config.model_fields.items():
        extra = field.json_schema_extra
        declared: Any = extra.get("search") if isinstance(extra, dict) else None
        if declared is None:
            continue
        ranges[name] = SearchRange(**declared, integer=field.annotation is int)
        if not 0 < ranges[name].low < ranges[name].high and declared["scale"] == "log":
            raise InputError(f"{config.__name__}.{name}: a log range needs 0 < low < high, and it is {declared}")
        if ranges[name].low >= ranges[name].high:
            raise InputError(f"{config.__name__}.{name}: a range needs low < high, and it is {declared}")
    return ranges


def _fixed(algorithm: str, overrides: Sequence[str]) -> set[str]:
    """The settings that ``overrides`` give to the algorithm, by their place in its table."""
    given: dict[str, Any] = {}
    for override in overrides:
        if override.startswith("algorithms."):
            apply_override(given, override)
    table = given.get("algorithms", {}).get(algorithm, {})
    parts = {part: table.get(part, {}) for part in ("config", "optimizer")}
    return {f"{part}.{field}" for part, fields in parts.items() if isinstance(fields, dict) for field in fields}


def _ranges(
    suite: Suite, algorithm: str, learning_rates: tuple[float, float], fixed: Container[str]
) -> dict[str, SearchRange]:
    name = suite.settings_for(algorithm).algorithm or algorithm
    config = registry.find("algorithms", name).Config
    declared = declared_ranges(config)
    if not declared:
        raise InputError(
            f"{config.__name__} of {name} declares no ranges, so there is nothing to tune but the learning rate. "
            "Declare what may be searched beside each field, such as\n"
            "    from rfbench.suite.settings import search\n"
            "    clip_range: float = Field(1e-4, gt=0, json_schema_extra=search(1e-5, 1e-2))  # on a log scale\n"
            '    updates_per_epoch: int = Field(1, ge=1, json_schema_extra=search(1, 8, "linear"))'
        )
    ranges = {LEARNING_RATE: SearchRange(*learning_rates)} | {f"config.{field}": r for field, r in declared.items()}
    free = {place: searched for place, searched in ranges.items() if place not in fixed}
    if not free:
        raise InputError(
            f"--set gives {', '.join(ranges)} of {algorithm}, which leaves nothing to search; leave one out"
        )
    return free


def _unseen_set(suite: Suite) -> str:
    """The suite's first evaluation set that training does not draw from."""
    for name, settings in suite.evaluation.sets.items():
        if not settings.seen:
            return name
    raise InputError(
        f"{suite.name} has no evaluation set of unseen prompts, and tune judges trials on such alone; add one to the "
        "suite: [evaluation.sets.unseen] with seen = false"
    )


def _tuning_overrides(suite: Suite) -> list[str]:
    """What makes the suite that trials run on: one evaluation set, of unseen prompts drawn with another seed."""
    drawn = suite.evaluation.sets[_unseen_set(suite)]
    fields = drawn.model_dump(mode="json", exclude_none=True, exclude={"final"})
    return [
        f"name={suite.name}-tuning",
        f"evaluation.sets={toml.inline({SET: fields})}",
        f"evaluation.seed={suite.evaluation.seed + SEED}",
        "evaluation.held_out_rewards=[]",
    ]


def suite_lines(algorithm: str, suite: Suite, settings: dict[str, float]) -> str:
    """The lines that put a trial's settings, and all else that it ran with, into a suite's file."""
    own = suite.settings_for(algorithm)
    table = own.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    table |= {"images_per_prompt": own.images_per_prompt}
    for place, value in settings.items():
        part, _, field = place.partition(".")
        table[part] = table.get(part, {}) | {field: value}
    return "\n".join([f"[algorithms.{algorithm}]", *(f"{key} = {toml.inline(value)}" for key, value in table.items())])
