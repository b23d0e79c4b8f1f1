"""How well an epoch's images point along the policy gradient, estimator by estimator, at a fixed policy.

    python -m rfbench_benchmarks.gradient_probe --suite large-shapes --out probe/base
    python -m rfbench_benchmarks.gradient_probe --run results/reference/large-shapes/ddpo/seed-4 --out probe/ddpo

Nothing is trained. A reference gradient is taken from many images, with leave-one-out advantages, which are unbiased;
then each estimator's gradient from batches of an epoch's size, and its cosine to the reference, in two coordinates:

- plain, those of the trained parameters, where a few loud ones decide;
- Adam's, where each coordinate is divided by the root of its mean square over the reference's rollouts: what AdamW
  would step along after many epochs at this policy, momentum apart (Kingma and Ba 2015, without epsilon).

An estimator that differs from another by a factor alone, such as a batch's standard deviation, points the same way and
stands once.

PRDP's coefficients, and the reference that they are compared with, belong to the KL-shaped reward r - beta u.

Every rollout is kept when it is done: stopped, the same command goes on. As long as the training prompts last, no
prompt of a batch is one of the reference's. ``probe.md`` and ``probe.json`` in the folder are the result.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rfbench.core.processes import Processes, Runtime
from rfbench.core.prompts import epoch_prompts
from rfbench.core.rollout import Rollout, RolloutNeeds
from rfbench.errors import InputError
from rfbench.files import write_atomically
from rfbench.planning.plan import make_plan
from rfbench.records.identity import suite_hash
from rfbench.running import checkpoint
from rfbench.running.assembly import Run, make_run
from rfbench.running.checkpoint import Owner
from rfbench.running.folder import RunFolder
from rfbench.running.reward_offsets import PromptOffsets
from rfbench.suite.loading import load_suite, suite_of
from rfbench.suite.suite import RewardOffsets, Suite
from rfbench_algorithms.advantages import batch_statistics, group_statistics, leave_one_out_mean
from rfbench_algorithms.prdp import prdp_loss

REFERENCES = ("reward", "reward - beta u")
COORDINATES = ("plain", "adam")


class Images(NamedTuple):
    """A rollout's numbers in float64: ``rewards``, ``groups`` and ``base_means`` ``(images,)``, ``u`` of PRDP."""

    rewards: Tensor
    groups: Tensor
    base_means: Tensor
    log_probs: Tensor  # (images, steps)
    reference_log_probs: Tensor  # (images, steps)
    beta: float

    @property
    def shaped(self) -> Tensor:
        """``(images,)`` r - beta u."""
        return self.rewards - self.beta * (self.log_probs - self.reference_log_probs).mean(1)


class Estimator(NamedTuple):
    """A way from rewards to the weight of each image's log-probs, ``(images,)`` or ``(images, steps)``."""

    name: str
    images_per_prompt: int
    weights: Callable[[Images], Tensor]
    reference: str = "reward"


def _from_batch(rewards: Tensor) -> Tensor:
    return rewards - batch_statistics(rewards).mean


def _by_group_std(images: Images) -> Tensor:
    statistics = group_statistics(images.rewards, images.groups)
    return (images.rewards - statistics.mean) / (statistics.std + 1e-6)


def _prdp_coefficients(images: Images) -> Tensor:
    """PRDP's, of an epoch's first update: minus dLoss/dl."""
    log_probs = images.log_probs.clone().requires_grad_()
    old, reference = images.log_probs, images.reference_log_probs
    prdp_loss(log_probs, old, reference, images.rewards, images.groups, images.beta, None).loss.backward()
    assert log_probs.grad is not None
    return -log_probs.grad


def estimators(group: int) -> list[Estimator]:
    """Those of one image per prompt and those of ``group``."""
    return [
        Estimator("batch mean", 1, lambda images: _from_batch(images.rewards)),
        Estimator("base model's means removed, batch mean", 1, lambda i: _from_batch(i.rewards - i.base_means)),
        Estimator("batch mean", group, lambda images: _from_batch(images.rewards)),
        Estimator("group mean", group, lambda i: i.rewards - group_statistics(i.rewards, i.groups).mean),
        Estimator("group mean and std", group, _by_group_std),
        Estimator("leave-one-out", group, lambda i: i.rewards - leave_one_out_mean(i.rewards, i.groups)),
        Estimator("PRDP's coefficients", group, _prdp_coefficients, reference="reward - beta u"),
    ]


class Probe:
    """A fixed policy, and gradients of weighted log-probs at it.

    Args:
        suite: its training reward, sampler and prompts are the probe's.
        batch: images of a rollout.
        group: images of one prompt, in the rollouts with groups.
        beta: of the KL-shaped reward.
        base_images: images of the base model for each prompt whose mean reward is removed.
    """

    def __init__(self, suite: Suite, *, seed: int, batch: int, group: int, beta: float, base_images: int) -> None:
        settings = {"probe": {"algorithm": "prdp", "images_per_prompt": group}}
        data = suite.model_dump(mode="json") | {"budget": {"reward_queries_per_epoch": batch}, "algorithms": settings}
        self._plan = make_plan(Suite.model_validate(data), "probe", seed)
        self.run: Run = make_run(self._plan, Processes(suite.compute))
        planned = self._plan.planned(self.run.processes.size)
        self.suite_hash = suite_hash(planned.suite, planned.inputs)
        self._batch, self._beta = batch, beta
        run = self.run
        self._base_means = PromptOffsets(
            RewardOffsets(base_images=base_images),
            run.policy,
            run.reward,
            self._plan.reward.name,
            Runtime(run.processes, run.meter, suite.compute.pairs_per_call, seed),
        )

    def rollout(self, number: int, images_per_prompt: int) -> Rollout:
        """The ``number``-th rollout, with log-probs under the policy and under the reference."""
        prompts = epoch_prompts(self._plan.prompts["train"], self._batch // images_per_prompt, number, self._plan.seed)
        settings = self._plan.settings.model_copy(update={"images_per_prompt": images_per_prompt})
        return self.run.sampler(number, prompts, settings, RolloutNeeds(reference_log_probs=True))

    def images(self, rollout: Rollout, with_base_means: bool) -> Images:
        assert rollout.reference_log_probs is not None
        base_means = torch.zeros(rollout.num_images)
        if with_base_means:
            base_means = -self._base_means(rollout.prompts)[rollout.groups]
        numbers = (base_means, rollout.log_probs, rollout.reference_log_probs)
        return Images(rollout.rewards.double(), rollout.groups, *(n.double() for n in numbers), beta=self._beta)

    def gradients(self, rollout: Rollout, weights: list[Tensor]) -> list[Tensor]:
        """The gradient of the mean over images of sum_t w_t L_t, flat, for each of ``weights`` ``(images, steps)``.

        Those that are multiples of an earlier one are not computed again, but scaled.
        """
        parameters = list(self.run.policy.trainable().values())
        size = sum(parameter.numel() for parameter in parameters)
        factors = [_multiple_of_an_earlier(weights, k) for k in range(len(weights))]
        distinct = [k for k, (earlier, _) in enumerate(factors) if earlier == k]
        sums = {k: torch.zeros(size, dtype=torch.float64) for k in distinct}
        self.run.learner.begin(rollout)
        for chunk in self.run.learner.chunks(rollout):
            log_probs = self.run.learner.log_probs(chunk)
            for k in distinct:
                of_chunk = (weights[k][chunk.index].to(log_probs) * log_probs).sum() / rollout.num_images
                parts = torch.autograd.grad(of_chunk, parameters, retain_graph=k != distinct[-1])
                sums[k] += torch.cat([part.flatten() for part in parts]).double().cpu()
        return [factor * sums[earlier] for earlier, factor in factors]


def _multiple_of_an_earlier(weights: list[Tensor], k: int) -> tuple[int, float]:
    """The first of ``weights`` of which the ``k``-th is a multiple, and the factor; itself and 1 if there is none."""
    for earlier in range(k):
        factor = float((weights[earlier] * weights[k]).sum() / weights[earlier].square().sum().clamp(min=1e-300))
        if float((weights[k] - factor * weights[earlier]).norm()) <= 1e-9 * float(weights[k].norm()):
            return earlier, factor
    return k, 1.0


def _cosine(first: Tensor, second: Tensor) -> float:
    return float(torch.dot(first, second) / (first.norm() * second.norm()).clamp(min=1e-300))


class Reference(NamedTuple):
    """The gradient that estimators are compared with, each tensor ``(parameters,)``."""

    even: Tensor  # the sum over every other rollout
    odd: Tensor
    mean_square: Tensor  # of a rollout's

    @property
    def whole(self) -> Tensor:
        return self.even + self.odd

    def cosine(self, first: Tensor, second: Tensor, coordinates: str) -> float:
        """Of two gradients ``(parameters,)``."""
        if coordinates == "adam":
            scale = self.mean_square.rsqrt().nan_to_num(posinf=0.0)  # a coordinate that never moved counts for nothing
            first, second = scale * first, scale * second
        return _cosine(first, second)


def probe(
    measured: Probe, out: Path, *, settings: dict[str, Any], reference_images: int, batches: int, batch: int, group: int
) -> dict[str, Any]:
    """Does what is left to do in the folder ``out``; the result, which ``probe.json`` there holds too."""
    folder = RunFolder(out)  # one writer at a time
    _check_same(folder.path / "settings.json", settings)
    rollouts = reference_images // batch
    references = _references(measured, out / "reference.safetensors", rollouts, group)
    rows = _batches(measured, out / "batches.json", references, rollouts, batches, group)
    result = {
        "settings": settings,
        "reference": {
            name: {
                "cosine_of_halves": {c: found.cosine(found.even, found.odd, c) for c in COORDINATES},
                "norm": math.sqrt(max(0.0, float(torch.dot(found.even, found.odd)))) * 2 / rollouts,
            }
            for name, found in references.items()
        },
        "estimators": [
            {"estimator": name, "images_per_prompt": size, "reference": reference, "batches": len(found)}
            | {c: _summary([row[c] for row in found]) for c in COORDINATES}
            for (name, size, reference), found in _by_estimator(rows).items()
        ],
    }
    write_atomically(out / "probe.json", json.dumps(result, indent=2).encode() + b"\n")
    write_atomically(out / "probe.md", _markdown(result).encode())
    return result


def _check_same(path: Path, settings: dict[str, Any]) -> None:
    """Notes what the probe in this folder is of; an ``InputError`` where another was begun there."""
    if not path.exists():
        write_atomically(path, json.dumps(settings, indent=2).encode() + b"\n")
    earlier = json.loads(path.read_text(encoding="utf-8"))
    different = [key for key in settings if earlier.get(key) != settings[key]]
    if different:
        key = different[0]
        raise InputError(
            f"{path.parent} holds a probe whose {key} is {earlier.get(key)!r}, not {settings[key]!r}; choose another "
            "--out, or remove that folder"
        )


def _references(measured: Probe, path: Path, rollouts: int, group: int) -> dict[str, Reference]:
    """Those of the reward and of the shaped reward, from ``rollouts`` rollouts; kept in ``path`` as they are made."""
    size = sum(parameter.numel() for parameter in measured.run.policy.trainable().values())
    state = {
        "done": torch.tensor(0),
        "halves": torch.zeros(len(REFERENCES), 2, size, dtype=torch.float64),
        "squares": torch.zeros(len(REFERENCES), size, dtype=torch.float64),
    }
    if path.exists():
        state = load_file(path)
    for number in range(int(state["done"]), rollouts):
        rollout = measured.rollout(number, group)
        images = measured.images(rollout, with_base_means=False)
        advantages = [values - leave_one_out_mean(values, images.groups) for values in (images.rewards, images.shaped)]
        weights = [_per_step(values, rollout) for values in advantages]
        gradients = torch.stack(measured.gradients(rollout, weights))
        state["halves"][:, number % 2] += gradients
        state["squares"] += gradients.square()
        state["done"] += 1
        temporary = path.with_name(f".{path.name}.tmp")
        save_file(state, temporary)
        temporary.replace(path)
        print(f"reference: {number + 1} of {rollouts} rollouts", flush=True)
    return {
        name: Reference(*halves, squares / rollouts)
        for name, halves, squares in zip(REFERENCES, state["halves"], state["squares"], strict=True)
    }


def _batches(
    measured: Probe, path: Path, references: dict[str, Reference], skipped: int, batches: int, group: int
) -> list[dict[str, Any]]:
    """A row per batch and estimator; ``skipped`` rollouts are the reference's."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    done = {(row["images_per_prompt"], row["batch"]) for row in rows}
    for position, images_per_prompt in enumerate((group, 1)):
        of_layout = [e for e in estimators(group) if e.images_per_prompt == images_per_prompt]
        for batch in range(batches):
            if (images_per_prompt, batch) in done:
                continue
            rollout = measured.rollout(skipped + position * batches + batch, images_per_prompt)
            images = measured.images(rollout, with_base_means=images_per_prompt == 1)
            gradients = measured.gradients(rollout, [_per_step(e.weights(images), rollout) for e in of_layout])
            rows += [
                {
                    "images_per_prompt": images_per_prompt,
                    "batch": batch,
                    "estimator": e.name,
                    "reference": e.reference,
                }
                | {c: (to := references[e.reference]).cosine(gradient, to.whole, c) for c in COORDINATES}
                for e, gradient in zip(of_layout, gradients, strict=True)
            ]
            write_atomically(path, json.dumps(rows).encode())
            print(f"{images_per_prompt} images per prompt: batch {batch + 1} of {batches}", flush=True)
    return rows


def _per_step(weights: Tensor, rollout: Rollout) -> Tensor:
    """``(images, steps)``; an image's weight is shared out among its steps."""
    return weights if weights.dim() == 2 else (weights / rollout.num_steps)[:, None].expand(-1, rollout.num_steps)


def _by_estimator(rows: list[dict[str, Any]]) -> dict[tuple[str, int, str], list[dict[str, Any]]]:
    found: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["images_per_prompt"]):
        found.setdefault((row["estimator"], row["images_per_prompt"], row["reference"]), []).append(row)
    return found


def _summary(cosines: list[float]) -> dict[str, float]:
    values = torch.tensor(cosines, dtype=torch.float64)
    spread = {"std": float(values.std())} if len(cosines) > 1 else {}
    return {"cosine": float(values.mean()), **spread}


def _markdown(result: dict[str, Any]) -> str:
    heads = ["estimator", "images per prompt", "reference", "cosine", "std over batches"]
    heads += ["cosine in Adam's coordinates", "std over batches", "batches"]
    lines = [heads, ["---", "---:", "---", "---:", "---:", "---:", "---:", "---:"]]
    for row in result["estimators"]:
        numbers = [number for c in COORDINATES for number in _numbers(row[c])]
        lines.append([row["estimator"], str(row["images_per_prompt"]), row["reference"], *numbers, str(row["batches"])])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n" + references_text(result) + "\n"


def references_text(result: dict[str, Any]) -> str:
    """A paragraph on each reference: its norm, and how far its two halves agree."""
    texts = []
    for name, reference in result["reference"].items():
        halves = reference["cosine_of_halves"]
        texts.append(
            f"Reference, {name}: norm {reference['norm']:.2g}; its two halves have a cosine of {halves['adam']:.3f} in "
            f"Adam's coordinates, {halves['plain']:.3f} in plain ones."
        )
    return "\n\n".join(texts)


def _numbers(summary: dict[str, float]) -> tuple[str, str]:
    return f"{summary['cosine']:.4f}", f"{summary['std']:.4f}" if "std" in summary else "–"


def load_trained(run: Run, path: Path) -> int:
    """Puts in place what the run in ``path`` trained, exported or of its newest checkpoint; returns its epoch."""
    folder = RunFolder(path, writer=False)
    record = folder.require_run()
    if folder.weights.is_dir():
        run.policy.model.load_trained(folder.weights, run.policy.adapter)
        return record.epoch
    saved = checkpoint.load_latest(folder.checkpoints, torch.device("cpu"), Owner.recorded(record))
    if saved is None:
        raise InputError(f"{path} has neither weights nor a checkpoint: nothing of what it trained is left")
    run.policy.load_state_dict(saved.weights)
    return saved.epoch


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--suite", help="the base model of this suite")
    where.add_argument("--run", type=Path, help="what this run trained, on the run's own suite")
    parser.add_argument("--out", type=Path, required=True, help="folder of the probe; begun there, it goes on")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a field of the suite"
    )
    parser.add_argument("--reference-images", type=int, default=4096)
    parser.add_argument("--batches", type=int, default=16, help="in each layout")
    parser.add_argument("--batch-images", type=int, default=128)
    parser.add_argument("--images-per-prompt", type=int, default=8, help="of the layout with groups")
    parser.add_argument("--base-images", type=int, default=8, help="images a prompt for the base model's mean reward")
    parser.add_argument("--beta", type=float, default=10.0, help="KL weight of PRDP's coefficients")
    parser.add_argument("--seed", type=int, default=1000, help="of prompts and noise; no run should have the same")
    options = parser.parse_args(arguments)
    batch, group = options.batch_images, options.images_per_prompt
    if options.reference_images % (2 * batch) or options.reference_images == 0:
        parser.error(f"--reference-images {options.reference_images} is no multiple of 2 x --batch-images {batch}")
    if group < 2 or batch % group:
        parser.error(f"--images-per-prompt {group} must be 2 or more and divide --batch-images {batch}")
    torch.set_num_threads(1)
    if options.run is None:
        suite = load_suite(options.suite, options.set)
    else:
        suite = suite_of(RunFolder(options.run, writer=False).require_run().suite, options.set, f"of {options.run}")
    measured = Probe(
        suite, seed=options.seed, batch=batch, group=group, beta=options.beta, base_images=options.base_images
    )
    epoch = load_trained(measured.run, options.run) if options.run else 0
    settings = {
        "suite": suite.name,
        "suite_hash": measured.suite_hash,
        "run": str(options.run) if options.run else None,
        "epoch": epoch,
        **{name: getattr(options, name) for name in ("reference_images", "batches", "batch_images")},
        **{name: getattr(options, name) for name in ("images_per_prompt", "base_images", "beta", "seed")},
    }
    result = probe(
        measured,
        options.out,
        settings=settings,
        reference_images=options.reference_images,
        batches=options.batches,
        batch=batch,
        group=group,
    )
    print(_markdown(result))


if __name__ == "__main__":
    main()
