"""The records of a run's folder, defined once: ``run.json``, ``metrics.jsonl``, ``evals.jsonl`` and their like.

Trainer, evaluation, report, tests and benchmarks make and read records through these models, and docs/records.md is
written from them. Each folder says its ``FORMAT``; `rfbench.records.migration` reads older ones.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rfbench.errors import InputError

FORMAT = 2
Role = Literal["training", "held-out", "diagnostic"]
Status = Literal["running", "finished", "interrupted", "failed"]
PHASES = ("load", "sample", "decode", "reward", "reference", "update", "evaluate", "other")


class Record(BaseModel):
    """A closed set of keys: one that is missing, or of another name, is refused when written and when read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def to_json(self, indent: int | None = None) -> str:
        """As JSON, on one line without ``indent``; keys in the order of the model."""
        return json.dumps(self.model_dump(mode="json"), indent=indent, allow_nan=False)


class CountersRecord(Record):
    """Work since the run's start, of all processes; evaluations are not counted."""

    reward_queries: int = Field(ge=0, description="images scored by the training reward")
    images: int = Field(ge=0, description="images sampled for training")
    denoiser_forwards: int = Field(ge=0, description="latents through the denoiser; guidance makes two of each")
    denoiser_backwards: int = Field(ge=0, description="latents whose gradient was computed")
    optimizer_steps: int = Field(ge=0, description="steps that the optimiser took")
    base_reward_queries: int = Field(
        0, ge=0, description="images of the base model that were scored for `reward_offsets`, apart from the budget"
    )


class RewardRecord(Record):
    """What a reward's numbers are."""

    unit: str
    version: str = Field(description="raised whenever its numbers change")


class PluginRecord(Record):
    """Which code an algorithm, model, reward or prompt set came from."""

    name: str
    origin: str = Field(description="a distribution and its version, or a file")
    sha256: str | None = Field(
        description="of the source file, where the plugin is not rfbench's own: those go by rfbench's commit"
    )


class RunRecord(Record):
    """``run.json``: what ran, how far it is, and what it was made with."""

    format: int = Field(description="of the folder's records; this page describes the newest")
    status: Status
    error: str | None = Field(description="why it failed")
    suite: dict[str, Any] = Field(
        description="the suite with every default filled in, those of its plugins too; of the algorithms, the run's own"
    )
    suite_hash: str = Field(description="of the settings that comparable runs share")
    variant: str = Field(description="the suite's table of the algorithm; its name where it has no table of its own")
    variant_hash: str = Field(description="of the algorithm's settings; runs are pooled where both hashes agree")
    seed: int
    epoch: int = Field(description="completed epochs")
    epochs: int = Field(description="epochs of the whole run")
    counters: CountersRecord
    phase_seconds: dict[Literal[PHASES], float] = Field(description="seconds by what they were spent on")  # type: ignore[valid-type]
    peak_memory_bytes: int = Field(description="of the GPU's allocations, or of the process on a CPU")
    trained_parameters: int
    processes: int
    prompts: dict[str, Any] | None = Field(
        description="prompts of each set, and how many were left out or cut; or null"
    )
    rewards: dict[str, RewardRecord] | None = Field(description="every reward's unit and version; null: not recorded")
    plugins: dict[str, PluginRecord] = Field(description="by their places in the suite")
    inputs: dict[str, str] = Field(description="sha256 of the local files and folders that the suite names, by place")
    files: dict[str, str] | None = Field(description="published files by place: the path, or the hub's id and commit")
    device: str
    versions: dict[str, str] = Field(description="of Python and of the packages that can change a number")
    git_commit: str | None = Field(description="of rfbench's source tree, with -dirty where it had changes")
    host: str | None = Field(description="the machine's name")
    job: str | None = Field(description="the cluster's job that it ran in")
    restart: int | None = Field(description="how often that job was requeued")
    started_at: str = Field(description="ISO 8601, UTC")
    updated_at: str = Field(description="ISO 8601, UTC")


class EpochRecord(Record):
    """A line of ``metrics.jsonl``: one epoch of training.

    Beside these keys stand the metrics of the run's algorithm, numbers by name; a name below is not open to them.
    Of a reward that is made of several, such as a weighted sum, ``reward_mean.TERM`` is the mean of each term's scores.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None]

    epoch: int = Field(description="from 1")
    reward_mean: float = Field(description="of the epoch's training rewards")
    reward_std: float = Field(description="of all of the epoch's training rewards")
    reward_std_within_prompt: float | None = Field(
        description="rms deviation from the mean of the prompt's images; null: each prompt has one"
    )
    reward_std_between_prompts: float | None = Field(
        None, description="of the prompts' own means, estimated free of the noise of few images; null as above"
    )
    reward_between_over_within: float | None = Field(
        None, description="that estimate over the unbiased one of the standard deviation within a prompt"
    )
    reward_offset_mean: float | None = Field(
        None, description="mean over prompts of what `reward_offsets` added to the rewards; null: the suite has none"
    )
    truncated_prompts: int | None = Field(None, description="prompts that the text encoder does not read to the end")
    reward_queries: int = Field(description="so far, as the five that follow")
    images: int
    denoiser_forwards: int
    denoiser_backwards: int
    optimizer_steps: int
    base_reward_queries: int = 0
    start_error: float | None = Field(
        description="largest distance of a log-prob from its sampled value before the first update; null: none compared"
    )
    grad_norm: float | None = Field(description="of the last optimiser step, before clipping; null: no step")
    load_seconds: float = Field(0.0, description="of this epoch, as the seven that follow")
    sample_seconds: float
    decode_seconds: float
    reward_seconds: float
    reference_seconds: float
    update_seconds: float
    evaluate_seconds: float
    other_seconds: float


class EvaluationRecord(Record):
    """A line of ``evals.jsonl``, ``quick.jsonl`` or ``final.jsonl``: one measure on one evaluation set."""

    epoch: int = Field(description="completed epochs")
    reward_queries: int = Field(description="training's, up to here")
    evaluation_set: str
    seen: bool = Field(description="whether training draws from these prompts")
    measure: str = Field(description="a reward, kl, kl_per_dimension, diversity, or one that the model knows exactly")
    role: Role
    unit: str
    mean: float = Field(description="over prompts, of each prompt's mean over its images")
    standard_error: float | None = Field(description="of that mean, over prompts; null for one prompt")
    std_within_prompt: float | None = Field(None, description="between a prompt's images; null: each prompt has one")
    std_between_prompts: float | None = Field(
        None, description="of the prompts' own means, estimated free of the noise of few images; null as above"
    )
    images: int
    per_prompt: list[float] = Field(description="each prompt's mean, to five digits")


class JudgementRecord(Record):
    """``quick.json`` or ``final.json``: what the records beside it were made with."""

    format: int
    suite: dict[str, Any] = Field(description="every default filled in, its evaluation sets as large as the tier asks")
    variant: str
    plugins: dict[str, PluginRecord]
    inputs: dict[str, str]
    rewards: dict[str, RewardRecord] | None = None
    processes: int = Field(1, description="always 1: their number does not matter for an evaluation")
    device: str
    versions: dict[str, str]
    git_commit: str | None
    host: str | None
    job: str | None
    restart: int | None
    updated_at: str


LINES: dict[str, type[Record]] = {  # by the name of the file
    "metrics": EpochRecord,
    "evals": EvaluationRecord,
    "quick": EvaluationRecord,
    "final": EvaluationRecord,
}
HEAD = "reward_mean."  # before a reward head's name: the mean of its raw scores, beside the keys of ``EpochRecord``
RESERVED = frozenset(EpochRecord.model_fields)  # names that an algorithm's metrics cannot take


def check_format(found: Any, where: str) -> None:
    """An ``InputError`` for records of a newer format than this rfbench reads."""
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise InputError(
            f"{where}: format is {found!r}; records are of format 1 to {FORMAT}. Restore the file, or start over with "
            "--overwrite"
        )
    if found > FORMAT:
        raise InputError(
            f"{where}: its records are of format {found}, and this rfbench reads up to {FORMAT}; use a newer rfbench"
        )
