"""Evaluation: the same prompts and the same noise for every algorithm, seed and epoch.

Measures, each as a mean over prompts of the mean over a prompt's images:

- the training reward, and rewards that training never sees;
- ``kl``: KL of the policy's trajectories from the reference's over the objective's steps, in nats: the expected sum of
  the steps' closed-form Gaussian KL, along the policy's own samples; ``kl_per_dimension`` is its mean per step and
  latent dimension, the unit of every beta;
- ``diversity``: root mean square pixel difference (0 to 1) between images of one prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rfbench.core import keyed_random
from rfbench.core.finite import Batch
from rfbench.core.policy import REFERENCE, Policy
from rfbench.core.processes import Runtime
from rfbench.core.reward import Reward, score
from rfbench.core.rollout import Spread, denoise, spread
from rfbench.core.schedule import kl_divergence
from rfbench.records.format import EvaluationRecord, RewardRecord, Role
from rfbench.suite.suite import Evaluation, EvaluationSet

UNITS = {"kl": "nats", "kl_per_dimension": "nats per latent dimension and step", "diversity": "pixel rms"}


@dataclass(frozen=True)
class Judge:
    """A reward and the part it plays."""

    name: str
    reward: Reward
    role: Role


@dataclass(frozen=True)
class SetResult:
    """One prompt set's evaluation: per-prompt means by measure, and the grid's images with their training reward."""

    name: str
    seen: bool
    images: int
    per_prompt: dict[str, Tensor]  # (prompts,) each
    spreads: dict[str, Spread]  # of the measures of single images
    grid: Tensor  # (grid prompts, grid images, 3, H, W) uint8
    scored_by: str  # the first training reward
    grid_scores: Tensor  # (grid prompts, grid images), of that reward


class Evaluator:
    """Judges the policy on the suite's evaluation sets, apart from training: its own noise, its own account."""

    def __init__(
        self,
        settings: Evaluation,
        prompts: dict[str, list[str]],
        judges: list[Judge],
        policy: Policy,
        runtime: Runtime,
    ) -> None:
        self._settings, self._prompts, self._judges = settings, prompts, judges
        self._policy, self._processes, self._meter = policy, runtime.processes, runtime.meter
        self._chunk_size = runtime.chunk_size

    def __call__(self, epoch: int) -> list[SetResult]:
        """Results of every set after ``epoch`` completed epochs."""
        return [self.evaluate(name, epoch) for name in self._settings.sets]

    def evaluate(self, name: str, epoch: int) -> SetResult:
        """The result of the set ``name`` after ``epoch`` completed epochs."""
        with self._meter.evaluation():
            return self._evaluate(name, self._settings.sets[name], epoch)

    def measures(self, name: str) -> set[str]:
        """What is measured on the set ``name``."""
        found = {judge.name for judge in self._judges} | {"kl", "kl_per_dimension", *self._policy.model.exact_units}
        return found | {"diversity"} if self._settings.sets[name].images_per_prompt > 1 else found

    def probe(self, epoch: int) -> None:
        """Draws one image, of which nothing is kept: a ``NonFiniteError`` where the policy draws none any more."""
        name, prompts = next(iter(self._prompts.items()))
        batch = Batch(f"the test of the weights after epoch {epoch}", prompts[:1])
        with self._meter.evaluation(), torch.no_grad():
            self._policy.decode(self._sample(name, range(1), batch)[0], batch)

    def rewards(self) -> dict[str, RewardRecord]:
        """Unit and version of every reward, by name, for ``run.json``."""
        return {
            judge.name: RewardRecord(unit=judge.reward.unit, version=judge.reward.version) for judge in self._judges
        }

    def records(self, results: list[SetResult], epoch: int) -> list[EvaluationRecord]:
        """One record per prompt set and measure, for ``evals.jsonl``."""
        roles: dict[str, Role] = {judge.name: judge.role for judge in self._judges}
        units = {judge.name: judge.reward.unit for judge in self._judges} | UNITS | self._policy.model.exact_units
        return [
            EvaluationRecord(
                epoch=epoch,
                reward_queries=self._meter.counters.reward_queries,
                evaluation_set=result.name,
                seen=result.seen,
                measure=measure,
                role=roles.get(measure, "diagnostic"),
                unit=units[measure],
                mean=float(values.mean()),
                standard_error=float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None,
                std_within_prompt=result.spreads[measure].within if measure in result.spreads else None,
                std_between_prompts=result.spreads[measure].between if measure in result.spreads else None,
                images=result.images,
                per_prompt=[float(f"{value:.5g}") for value in values.tolist()],
            )
            for result in results
            for measure, values in result.per_prompt.items()
        ]

    @torch.no_grad()
    def _evaluate(self, name: str, settings: EvaluationSet, epoch: int) -> SetResult:
        prompts, copies = self._prompts[name], settings.images_per_prompt
        share = self._processes.share(len(prompts))
        start, stop = share.start * copies, share.stop * copies
        measures = {judge.name: torch.zeros(len(prompts) * copies) for judge in self._judges}
        kl = torch.zeros(len(prompts) * copies)
        pictures = _Pictures(copies, self._settings.grid_prompts, self._settings.grid_images)
        for first in range(start, stop, self._chunk_size):
            images = range(first, min(first + self._chunk_size, stop))
            rows = torch.arange(images.start, images.stop)
            chunk_prompts = [prompts[image // copies] for image in images]
            batch = Batch(f"the evaluation of {name!r} after epoch {epoch}", chunk_prompts, first)
            clean, kl[rows] = self._sample(name, images, batch)
            decoded = self._policy.decode(clean, batch)
            for judge in self._judges:
                scores = score(judge.reward, judge.name, decoded, chunk_prompts, batch.where, first)
                measures[judge.name][rows] = scores
            for image, picture in zip(images, self._policy.model.pictures(decoded).cpu(), strict=True):
                pictures.add(image, picture)
        schedule, shape = self._policy.schedule, self._policy.model.latent_shape
        measures["kl"] = kl
        measures["kl_per_dimension"] = kl / (len(schedule.objective_steps) * math.prod(shape))
        measures = {measure: self._processes.sum(values) for measure, values in measures.items()}
        per_prompt = {measure: values.view(len(prompts), copies).mean(1) for measure, values in measures.items()}
        of_prompt = torch.arange(len(prompts)).repeat_interleave(copies)
        spreads = {measure: spread(values, of_prompt) for measure, values in measures.items()}
        per_prompt |= self._policy.model.exact_measures(schedule, prompts)
        if copies > 1:
            diversity = torch.zeros(len(prompts))
            diversity[share.start : share.stop] = torch.tensor(pictures.diversity)
            per_prompt["diversity"] = self._processes.sum(diversity)
        grid = self._processes.sum(pictures.grid(len(prompts))).to(torch.uint8)
        by = next(judge.name for judge in self._judges if judge.role == "training")
        grid_scores = measures[by].view(len(prompts), copies)[: grid.shape[0], : grid.shape[1]]
        return SetResult(name, settings.seen, len(prompts) * copies, per_prompt, spreads, grid, by, grid_scores)

    def _sample(self, name: str, images: range, batch: Batch) -> tuple[Tensor, Tensor]:
        """x_0 ``(m, ...)`` and the KL of the objective's steps in nats ``(m,)``."""
        policy, schedule = self._policy, self._policy.schedule
        keys = [(self._settings.seed, "evaluation", name, image) for image in images]
        drawn = keyed_random.normal(keys, (schedule.num_steps + 1, *policy.model.latent_shape)).to(
            self._processes.device
        )
        condition = policy.encode_prompts(batch.prompts)
        objective_steps = set(schedule.objective_steps.tolist())
        kl = torch.zeros(len(images))
        clean = drawn[:, 0]
        for step, (steps, latents, mean, next_latents) in enumerate(denoise(policy, condition, drawn, batch)):
            if step in objective_steps:
                reference_mean = policy.step_mean(latents, steps, condition, weights=REFERENCE)
                divergence = kl_divergence(mean, reference_mean, schedule.sigma[steps]).cpu()
                batch.require_finite(divergence, f"the KL from the reference in step {step + 1} is")
                kl += divergence
            clean = next_latents
        return clean, kl


class _Pictures:
    """What is kept of a set's pictures, which may be tens of thousands: each prompt's diversity, and the grid's tiles.

    Attributes:
        diversity: root mean square pixel difference over the pairs of one prompt's pictures, prompt by prompt.
    """

    def __init__(self, copies: int, rows: int, columns: int) -> None:
        self._copies, self._rows, self._columns = copies, rows, min(columns, copies)
        self._tiles: dict[tuple[int, int], Tensor] = {}
        self._sum, self._squares = torch.tensor(0), 0  # of the prompt whose pictures are being added
        self.diversity: list[float] = []

    def add(self, image: int, picture: Tensor) -> None:
        """Takes the set's ``image``-th picture ``(3, H, W)`` uint8; the pictures come in order."""
        prompt, copy = divmod(image, self._copies)
        self._shape = picture.shape
        if prompt < self._rows and copy < self._columns:
            self._tiles[prompt, copy] = picture.int()
        pixels = picture.long()
        squares = int(pixels.square().sum())
        self._sum, self._squares = (pixels, squares) if copy == 0 else (self._sum + pixels, self._squares + squares)
        if copy == self._copies - 1 > 0:
            self.diversity.append(_rms_difference(self._sum, self._squares, self._copies))

    def grid(self, num_prompts: int) -> Tensor:
        """The first pictures of the first prompts ``(rows, columns, 3, H, W)`` int32; 0 for those not added here."""
        grid = torch.zeros(min(self._rows, num_prompts), self._columns, *self._shape, dtype=torch.int32)
        for tile, picture in self._tiles.items():
            grid[tile] = picture
        return grid


def _rms_difference(total: Tensor, squares: int, count: int) -> float:
    """Root mean square difference, 0 to 1, over the pairs of ``count`` 8-bit pictures with this sum and squared sum.

    The sum over pairs of (x_i - x_j)^2 is n sum x^2 - (sum x)^2, exact in integers.
    """
    over_pairs = count * squares - int(total.square().sum())
    return math.sqrt(over_pairs / (count * (count - 1) / 2 * total.numel())) / 255
