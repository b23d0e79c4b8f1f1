"""A suite: model, prompts, reward, budget and evaluation as one validated, hashed piece of data.

A suite is a TOML file in ``benchmarks/suites/`` (or any path). ``--set key=value`` overrides any field by its dotted
name. What each field decides, to resume, to pool and to compare, stands beside it: `rfbench.records.identity`.
"""

from __future__ import annotations

from math import isqrt
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from rfbench.errors import InputError, did_you_mean
from rfbench.suite.settings import FREE, RESUME, Name, Settings


class PluginRef(Settings):
    """Something found by entry point: ``name``, and the fields of the plugin's own ``Config`` beside it."""

    model_config = ConfigDict(extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Sampler(Settings):
    """How images are drawn: the reference's, the evaluation's, and in training unless an algorithm has its own."""

    kind: str = Field(
        "ddpm",
        description="ddpm: ancestral sampling; ddim: DDIM with eta; ode: without noise; flow-sde: Flow-GRPO's; "
        "dance-sde: DanceGRPO's; cps: coefficients-preserving sampling",
    )
    num_steps: int = Field(50, ge=1, description="denoising steps")
    eta: float = Field(1.0, ge=0, le=1, description="DDIM's noise scale; 1 is ancestral")
    noise_level: float | None = Field(
        None, gt=0, description="noise scale of flow-sde (null: 0.7), dance-sde (0.3) and cps (0.8)"
    )
    guidance_scale: float = Field(5.0, ge=1, description="classifier-free guidance; 1 turns it off")
    skip_last_steps: int = Field(0, ge=0, description="final steps, of vanishing sigma, that carry no gradient")

    @model_validator(mode="after")
    def _leaves_steps_to_train(self) -> Sampler:
        """What can be told without the model; its process knows the rest."""
        if self.kind == "ddpm" and self.eta != 1:
            raise ValueError(f"eta is {self.eta}, but ddpm is ancestral sampling (eta 1); use kind = 'ddim'")
        if self.skip_last_steps >= self.num_steps:
            raise ValueError(
                f"skip_last_steps is {self.skip_last_steps} and num_steps {self.num_steps}: no denoising step is left "
                "to train; lower skip_last_steps or raise num_steps"
            )
        return self


class Window(Settings):
    """The consecutive steps of a training sampler that draw noise; its other steps are then those of the ODE.

    It is the same for all images of an epoch.
    """

    size: int = Field(ge=1, description="steps that draw noise, and carry the gradient")
    moves: Literal["randomly", "forward"] = Field(
        "randomly",
        description="randomly: every epoch draws a start in the first half of the steps; forward: from the first step "
        "on, one step later each time, and back from the end",
    )
    every: int = Field(25, ge=1, description="epochs between the moves forward")

    @model_validator(mode="after")
    def _only_a_move_forward_waits(self) -> Window:
        if self.moves != "forward" and self.every != type(self).model_fields["every"].default:
            raise ValueError(
                f"every is {self.every}, but the window moves {self.moves}, every epoch; leave every out, or use "
                'moves = "forward"'
            )
        return self


class TrainingSampler(Settings):
    """What an algorithm's training draws its images with where that differs from the suite's sampler.

    The evaluation keeps the suite's. So these runs differ from the others' in their protocol, which reports say.
    """

    kind: str | None = Field(None, description="as in the suite's sampler; null: the same")
    num_steps: int | None = Field(None, ge=1, description="denoising steps")
    eta: float | None = Field(None, ge=0, le=1, description="DDIM's noise scale; 0 is deterministic")
    noise_level: float | None = Field(None, gt=0, description="noise scale of the samplers that have one")
    guidance_scale: float | None = Field(None, ge=1, description="classifier-free guidance; 1 turns it off")
    skip_last_steps: int | None = Field(None, ge=0, description="final steps that carry no gradient")
    window: Window | None = Field(None, description="the steps that draw noise, where not all do")

    def over(self, sampler: Sampler) -> Sampler:
        """The sampler that this makes of the suite's; a pydantic ``ValidationError`` if it cannot be one.

        A sampler of another kind does not take over how the suite's scales its noise.
        """
        changed = self.model_dump(exclude={"window"}, exclude_none=True)
        other_kind = self.kind not in (None, sampler.kind)
        kept = sampler.model_dump(exclude={"eta", "noise_level"} if other_kind else None)
        return Sampler(**kept | changed)


class Finetune(Settings):
    """Which weights are trained, and so what the frozen reference is."""

    method: Literal["full", "lora"] = Field("full", description="all weights beside a frozen copy, or a LoRA adapter")
    rank: int = Field(4, ge=1, description="LoRA rank")
    alpha: float | None = Field(
        None, gt=0, description="LoRA's scale: its product is multiplied by alpha / rank; None: equal to the rank"
    )
    target_modules: tuple[str, ...] | None = Field(
        None, min_length=1, description="LoRA's modules, by the ends of their names; None: the model's own choice"
    )

    def modules(self, usual: tuple[str, ...]) -> tuple[str, ...]:
        """LoRA's modules in a model that has it on the ``usual`` ones."""
        return self.target_modules or usual


Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Settings):
    """AdamW and gradient clipping."""

    learning_rate: float = Field(1e-4, gt=0, description="AdamW's step size, without a schedule")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="decay of the gradient's mean and of its square's")
    weight_decay: float = Field(1e-4, ge=0, description="of every trained weight, apart from the gradient")
    max_grad_norm: Annotated[float, Field(gt=0)] | Literal["off"] = Field(
        1.0, description="the gradient's global norm is clipped to this; 'off' for none"
    )


class Budget(Settings):
    """What every algorithm of the suite may spend."""

    reward_queries_per_epoch: int = Field(ge=1, description="images scored per epoch: prompts x images per prompt")


class RewardOffsets(Settings):
    """A constant of each prompt on its training rewards: differences between prompts, added or removed."""

    added_std: float | None = Field(
        None, gt=0, description="standard deviation, in reward units, of a constant drawn for each prompt and added"
    )
    base_images: int | None = Field(
        None,
        ge=1,
        description="images of the base model for each prompt, whose mean reward is subtracted; apart from the budget",
    )

    @model_validator(mode="after")
    def _does_something(self) -> RewardOffsets:
        if self.added_std is None and self.base_images is None:
            raise ValueError("needs added_std, base_images or both: as it is, it changes no reward")
        return self


TierName = Literal["quick", "final"]


class Tier(Settings):
    """How thoroughly a prompt set is judged."""

    num_prompts: int = Field(ge=1)
    images_per_prompt: int = Field(ge=1)


class EvaluationSet(Settings):
    """Prompts that are evaluated with the same noise for every algorithm, seed and epoch."""

    prompts: str = Field(description="one of the suite's [prompts] tables")
    seen: bool = Field(description="whether training draws from these prompts")
    num_prompts: int = Field(ge=1, description="of the quick tier, which is evaluated during training")
    images_per_prompt: int = Field(ge=1, description="of the quick tier")
    final: Tier | None = Field(
        None, description="the final tier, of `rfbench evaluate`; it includes quick's prompts", json_schema_extra=FREE
    )
    exclude: tuple[str, ...] | None = Field(
        None, description="[prompts] tables whose prompts are left out, so that fewer than num_prompts may remain"
    )


class Evaluation(Settings):
    """When and on what a run is judged. The training reward is always measured."""

    every: int = Field(5, ge=1, description="epochs between evaluations; the first and the last epoch always are")
    seed: int = Field(0, description="key of the evaluation's prompts and noise, apart from the run's seed")
    sets: dict[Name, EvaluationSet] = Field(min_length=1)
    held_out_rewards: tuple[PluginRef, ...] = Field(
        (), description="rewards that training never sees", json_schema_extra=RESUME
    )
    grid_prompts: int = Field(
        8, ge=1, description="prompts (rows) of the sample images saved at each evaluation", json_schema_extra=RESUME
    )
    grid_images: int = Field(
        4, ge=1, description="images per prompt (columns) of the sample images", json_schema_extra=RESUME
    )


class TrackerSettings(Settings):
    """Where the numbers of the JSONL records also go. May change at a resume."""

    tensorboard: bool = Field(False, description="event files in the run's folder, in trackers/tensorboard")
    wandb: Literal["off", "online", "offline"] = Field(
        "off", description="Weights & Biases, project rfbench; offline: files in trackers/wandb, for `wandb sync`"
    )


class Compute(Settings):
    """What may change speed, memory and what is seen of a run; of its outcome, no more than the precision does."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", json_schema_extra=RESUME)
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32",
        description="of the denoiser's products, over fp32 trained weights; tf32: what PyTorch does on newer GPUs, "
        "bf16 and fp16: autocast. Densities stay fp32. Runs of different precision are not averaged",
    )
    chunk_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        64,
        description="(image, step) pairs per network call, sampling and training alike; auto: as many as the GPU's "
        "memory takes, or as a CPU computes fastest; the record tells how many",
        json_schema_extra=FREE,
    )
    decode_chunk_size: int | None = Field(
        None,
        ge=1,
        description="images decoded at once; None: on a GPU as many as take no more memory than training does, by the "
        "account of it, on a CPU a whole chunk; the record tells how many",
        json_schema_extra=FREE,
    )
    prompt_folder: str | None = Field(
        None,
        description="folder in which encoded prompts are kept, over runs too: a run encodes its prompts before its "
        "first epoch, and text encoders take no memory after that; None: encoders stay, and encode as prompts come",
        json_schema_extra=FREE,
    )
    gradient_checkpointing: bool = Field(
        False, description="compute activations again instead of keeping them", json_schema_extra=FREE
    )
    compile: bool = Field(
        False, description="torch.compile of the denoiser, for chunks of one shape", json_schema_extra=FREE
    )
    processes: int | None = Field(
        None, ge=1, description="processes that must take part; None takes what is launched", json_schema_extra=FREE
    )
    timeout_minutes: float = Field(
        30.0,
        gt=0,
        description="for which a process waits for the others of its run before it gives them up for lost",
        json_schema_extra=FREE,
    )
    checkpoint_every: int = Field(1, ge=1, description="epochs between checkpoints", json_schema_extra=FREE)
    export: bool = Field(
        True,
        description="write what was trained in its library's format at the end, in weights/",
        json_schema_extra=FREE,
    )
    trackers: TrackerSettings = Field(TrackerSettings(), json_schema_extra=FREE)

    @property
    def pairs_per_call(self) -> int:
        """``chunk_size``; while it is "auto", which is settled when a run is made, the least that it can be: 1."""
        return 1 if self.chunk_size == "auto" else self.chunk_size


class AlgorithmSettings(Settings):
    """How one algorithm (or a named variant of it) spends the suite's budget.

    In a suite, ``like = "other"`` starts from the table ``other``, of which only what follows is changed.
    """

    algorithm: str | None = Field(None, description="the algorithm's name, where the table's name is a variant's")
    images_per_prompt: int = Field(8, ge=1, description="group size; prompts per epoch = reward queries / this")
    sample_from: Literal["policy", "reference", "old"] = Field(
        "policy",
        description="whose images are scored: the policy's (online), the frozen reference's (offline), or those of the "
        "lagged copy of the policy that some algorithms keep",
    )
    shared_initial_latents: bool = Field(False, description="whether the images of one prompt start from one x_T")
    sampler: TrainingSampler | None = Field(
        None, description="what training draws images with, where it is not the suite's sampler"
    )
    optimizer: Optimizer = Optimizer()
    config: dict[str, Any] = Field({}, description="fields of the algorithm's own Config")


class Paper(Settings):
    """The experiment of the PRDP paper that a suite repeats, whose numbers ``rfbench compare`` shows beside ours."""

    suite: Literal["small", "large"] = Field(description="the paper's small-scale or large-scale experiments")
    reward: str = Field(description="the reward trained on: hpsv2, pickscore, aesthetic, or multi for the weighted sum")


class Suite(Settings):
    """Everything that fixes an experiment but the algorithm and the seed."""

    name: Name
    version: int = Field(ge=1, description="raised whenever a number changes")
    description: str = Field("", json_schema_extra=FREE)
    epochs: int = Field(ge=1)
    model: PluginRef
    finetune: Finetune = Finetune()
    sampler: Sampler = Sampler()
    reward: PluginRef
    prompts: dict[str, PluginRef] = Field(description="prompt sets by name; training draws from 'train'")
    reward_noise: float | None = Field(
        None, gt=0, description="standard deviation of Gaussian noise on the training rewards, never on an evaluation's"
    )
    reward_offsets: RewardOffsets | None = Field(None, description="a constant of each prompt on its training rewards")
    budget: Budget
    evaluation: Evaluation
    compute: Compute = Compute()
    algorithms: dict[Name, AlgorithmSettings] = Field({}, description="one table for each algorithm or variant")
    paper: Paper | None = Field(None, description="what to compare with", json_schema_extra=FREE)

    @model_validator(mode="before")
    @classmethod
    def _variants_inherit(cls, data: Any) -> Any:
        """Fills in each ``[algorithms.*]`` table that is ``like`` another."""
        tables = data.get("algorithms") if isinstance(data, dict) else None
        if not isinstance(tables, dict):
            return data
        return data | {"algorithms": {label: _inherit(tables, label, ()) for label in tables}}

    @model_validator(mode="after")
    def _samplers_have_a_chain(self) -> Suite:
        if self.sampler.eta == 0:
            raise ValueError(
                "sampler.eta is 0, which leaves no step with noise, so none with a density, and no KL to evaluate; use "
                "an eta above 0, or set it for an algorithm's training alone, as algorithms.NAME.sampler.eta"
            )
        for label in self.algorithms:
            try:
                self.training_sampler(label)
            except ValidationError as error:
                why = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"algorithms.{label}.sampler, with what it leaves to the suite's: {why}") from None
        return self

    @model_validator(mode="after")
    def _names_resolve(self) -> Suite:
        if "train" not in self.prompts:
            raise ValueError(f"prompts needs a table [prompts.train]; it has {sorted(self.prompts)}")
        for name, evaluation_set in self.evaluation.sets.items():
            if evaluation_set.prompts not in self.prompts:
                raise ValueError(
                    f"evaluation.sets.{name}.prompts is {evaluation_set.prompts!r}, which is not among [prompts]"
                    f"{did_you_mean(evaluation_set.prompts, self.prompts)}"
                )
            for excluded in evaluation_set.exclude or ():
                if excluded not in self.prompts:
                    raise ValueError(
                        f"evaluation.sets.{name}.exclude names {excluded!r}, which is not among [prompts]"
                        f"{did_you_mean(excluded, self.prompts)}"
                    )
        return self

    @model_validator(mode="after")
    def _rewards_have_one_role(self) -> Suite:
        """A measure has one name and one role: what is trained on cannot be held out, and nothing is judged twice."""
        names = [reward.name for reward in self.evaluation.held_out_rewards]
        for index, name in enumerate(names):
            rest = [reward for i, reward in enumerate(names) if i != index]
            if name == self.reward.name:
                raise ValueError(
                    f"evaluation.held_out_rewards names {name!r}, which is the training reward; a held-out reward is "
                    f"one that training never sees: leave it out, --set 'evaluation.held_out_rewards={_rewards(rest)}'"
                )
            if name in names[:index]:
                raise ValueError(
                    f"evaluation.held_out_rewards names {name!r} twice; the second would take the first one's place: "
                    f"leave one out, as in --set 'evaluation.held_out_rewards={_rewards(rest)}'"
                )
        return self

    def at_tier(self, tier: TierName) -> Suite:
        """The suite with each evaluation set as large as the tier asks; quick is the suite itself."""
        if tier == "quick":
            return self
        lacking = [name for name, evaluation_set in self.evaluation.sets.items() if evaluation_set.final is None]
        if lacking:
            raise InputError(
                f"{self.name} has no final tier: evaluation.sets.{lacking[0]}.final is missing; use --tier quick, or "
                f"add such as final = {{ num_prompts = 100, images_per_prompt = 16 }} to the suite's file"
            )
        sets = {
            name: evaluation_set.model_copy(update=dict(evaluation_set.final or ()))
            for name, evaluation_set in self.evaluation.sets.items()
        }
        return self.model_copy(update={"evaluation": self.evaluation.model_copy(update={"sets": sets})})

    def settings_for(self, label: str) -> AlgorithmSettings:
        """The algorithm's table, or the defaults for an algorithm that the suite does not list."""
        return self.algorithms.get(label, AlgorithmSettings())

    def training_sampler(self, label: str) -> Sampler:
        """How the algorithm's training draws its images."""
        own = self.settings_for(label).sampler
        return own.over(self.sampler) if own else self.sampler

    def prompts_per_epoch(self, label: str) -> int:
        """Prompts per epoch inside the budget; an ``InputError`` when the group size does not divide it."""
        queries = self.budget.reward_queries_per_epoch
        group = self.settings_for(label).images_per_prompt
        if queries % group:
            small = [d for d in range(1, isqrt(queries) + 1) if queries % d == 0]
            divisors = sorted({*small, *(queries // d for d in small)})
            raise InputError(
                f"{label}: images_per_prompt {group} does not divide the budget of {queries} reward queries per epoch; "
                f"use --set algorithms.{label}.images_per_prompt= one of {', '.join(map(str, divisors))}"
            )
        return queries // group


def _rewards(names: list[str]) -> str:
    """Rewards as `--set` takes them."""
    return "[" + ", ".join(f'{{name="{name}"}}' for name in names) + "]"


def _inherit(tables: dict[str, Any], label: str, heirs: tuple[str, ...]) -> Any:
    """The table of ``label``, laid over the one that it is ``like``."""
    table = tables[label]
    if not isinstance(table, dict) or "like" not in table:
        return table
    parent = table["like"]
    if not isinstance(parent, str) or parent not in tables or parent in (label, *heirs):
        others = [name for name in tables if name not in (label, *heirs)]
        raise ValueError(
            f"algorithms.{label}.like is {parent!r}{did_you_mean(str(parent), others)}; it can be like "
            f"{', '.join(others) or 'no other table'}"
        )
    inherited = _inherit(tables, parent, (label, *heirs))
    if not isinstance(inherited, dict):
        raise ValueError(f"algorithms.{label}.like is {parent!r}, but algorithms.{parent} is {inherited!r}, no table")
    own = {key: value for key, value in table.items() if key != "like"}
    return _merged({"algorithm": parent} | inherited, own)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``base``, table by table."""
    both = {
        key: _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in over.items()
    }
    return base | both
