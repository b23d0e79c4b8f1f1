"""Throughput of a PRDP epoch: rfbench's way beside the plain way of the public one-paper scripts.

    python benchmarks/cost/epoch.py                                            # the embedded model on the CPU
    python benchmarks/cost/epoch.py --model sd1 --device cuda --images 128 --steps 50 --chunk-size 32 \\
        --precision bf16 --lora --compile --decode-chunk-size 8                # Stable Diffusion 1.x, on a GPU

An epoch samples and decodes images with guidance 5, takes the frozen reference's log-probs, and updates once on every
(image, step) pair. Both ways run the same code and do the same work; they differ in the shape of a network call:

- rfbench: ``--chunk-size`` images or pairs at once in every phase, compiled with ``--compile``;
- plain: 8 images at once when sampling, 4 when training, one denoising step at a time, never compiled.

The ways take turns, ``--repeats`` times after one round to warm up. Speed does not depend on the weights: ``sd1`` and a
pipeline's folder get random ones, from the configs alone. The reward's time is left out. ``share`` is what the UNet's
operations per second (three times a forward's for a pair that is trained) are of a large matrix product's on the same
device, in the same precision.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rfbench.core.conditioning import stack
from rfbench.core.learner import Learner
from rfbench.core.meter import Meter
from rfbench.core.policy import REFERENCE, Policy, make_policy
from rfbench.core.processes import Processes, Runtime
from rfbench.core.prompts import epoch_prompts
from rfbench.core.reward import Reward
from rfbench.core.rollout import RolloutSampler
from rfbench.models.stable_diffusion import DEFAULT_PATH
from rfbench.planning.plan import Plan, make_outline
from rfbench.suite.loading import load_suite

SAMPLE_BATCH, TRAIN_BATCH = 8, 4  # of the plain way
PHASES = ("sample", "reference", "decode", "update")


@dataclass
class Epoch:
    """What one epoch took; ``memory`` is its peak above the state before it, in bytes, on GPUs alone."""

    seconds: dict[str, float]
    memory: int

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


class Lottery(Reward):
    """Random numbers: no two images tie, so every pair of a prompt's images is trained."""

    unit, version = "none", "1"

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.rand(len(images))


class Way:
    """The parts of a run that an epoch goes through, with a batch size for sampling and one for training."""

    def __init__(self, plan: Plan, processes: Processes, sample_batch: int, train_batch: int) -> None:
        suite, device = plan.suite, processes.device
        model = plan.model.cls.untrained(plan.model.config, device)
        self.plan, self.device, self.meter = plan, device, Meter(device)
        self.policy: Policy = make_policy(suite, model, device, counters=self.meter.counters)
        self.algorithm = plan.algorithm.make()
        sampling, training = (Runtime(processes, self.meter, batch, seed=0) for batch in (sample_batch, train_batch))
        self.sampler = RolloutSampler(self.policy, Lottery(), "lottery", sampling)
        self.learner = Learner(self.policy, plan.settings.optimizer, training)

    def epoch(self, number: int) -> Epoch:
        """Samples, scores and updates."""
        plan, before, resting = self.plan, self.meter.lap(), 0
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            resting = torch.cuda.memory_allocated(self.device)
        prompts = epoch_prompts(plan.prompts["train"], plan.prompts_per_epoch, number, plan.seed)
        rollout = self.sampler(number, prompts, plan.settings, self.algorithm.rollout_needs)
        self.learner.begin(rollout)
        with self.meter.phase("update"):
            self.algorithm.update(rollout, self.learner)
        self.learner.end()
        spent = {name: seconds - before[name] for name, seconds in self.meter.lap().items() if name in PHASES}
        peak = torch.cuda.max_memory_allocated(self.device) - resting if self.device.type == "cuda" else 0
        return Epoch(spent, peak)


def make_ways(options: argparse.Namespace) -> dict[str, Way]:
    path = DEFAULT_PATH if options.model == "sd1" else options.model
    embedded = options.model == "shapes"
    settings = [
        'model={name="shapes"}' if embedded else f'model={{name="stable-diffusion",path="{path}"}}',
        'reward={name="jpeg-incompressibility"}',  # needs no files; the lottery takes its place
        "evaluation.held_out_rewards=[]",
        f"budget.reward_queries_per_epoch={options.images}",
        "algorithms.prdp.images_per_prompt=8",
        "algorithms.prdp.config={clip_range='off'}",  # then every pair is trained, whatever the rewards
        f"sampler={{kind='ddpm',num_steps={options.steps},guidance_scale=5.0}}",
        f"finetune.method={'lora' if options.lora else 'full'}",
        f"compute={{device='{options.device}',precision='{options.precision}'}}",
        f"compute.gradient_checkpointing={str(options.gradient_checkpointing).lower()}",
    ]
    if options.decode_chunk_size:
        settings.append(f"compute.decode_chunk_size={options.decode_chunk_size}")
    ours = [f"compute.chunk_size={options.chunk_size}", f"compute.compile={str(options.compile).lower()}"]
    return {
        "rfbench": _way([*settings, *ours], options.chunk_size, options.chunk_size),
        "plain": _way(settings, SAMPLE_BATCH, TRAIN_BATCH),
    }


def _way(settings: list[str], sample_batch: int, train_batch: int) -> Way:
    outline = make_outline(load_suite("small-shapes", settings), "prdp", seed=0)
    prompts = {name: part.make() for name, part in outline.prompt_sets.items()}
    plan = Plan(**vars(outline), prompts=prompts, evaluation_prompts={})
    return Way(plan, Processes(plan.suite.compute), sample_batch, train_batch)


def measure(ways: dict[str, Way], repeats: int) -> dict[str, list[Epoch]]:
    """The epochs of each way, in turns, without the first round."""
    found: dict[str, list[Epoch]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, way in ways.items():
            epoch = way.epoch(number)
            if number:
                found[name].append(epoch)
    return found


def forward_flops(way: Way) -> int:
    """Operations of one latent through the denoiser, a multiplication and an addition counting as two."""
    policy = way.policy
    latents = torch.zeros(1, *policy.model.latent_shape, device=way.device)
    condition = stack([policy.encode_prompts([""])])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        policy.predict(latents, policy.schedule.timesteps[:1], condition, guided=False, weights=REFERENCE)
    return counter.get_total_flops()


def matrix_peak(device: torch.device, precision: str) -> float:
    """Operations per second of a large matrix product: the best of ten."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    n = 8192 if device.type == "cuda" else 1024 if precision == "fp32" else 256  # CPUs often only emulate the others
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    meter, best = Meter(device), float("inf")
    for _ in range(11):
        meter.lap()
        start = time.perf_counter()
        a @ b
        meter.lap()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def table(ways: dict[str, Way], epochs: dict[str, list[Epoch]], precision: str) -> str:
    """Medians over the repeats, and the ratio of the ways' epochs with its range."""
    flops, peak = forward_flops(ways["plain"]), matrix_peak(ways["plain"].device, precision)
    lines = ["way      epoch s   images/s sampled   pairs/s trained   peak GiB   share of peak"]
    for name, way in ways.items():
        found, plan = epochs[name], way.plan
        images = plan.suite.budget.reward_queries_per_epoch
        total = statistics.median(epoch.total for epoch in found)
        sampled = statistics.median(images / epoch.seconds["sample"] for epoch in found)
        trained = statistics.median(images * plan.objective_steps / epoch.seconds["update"] for epoch in found)
        cost = plan.epoch_cost()
        share = flops * (cost.forwards + 2 * cost.backwards) / total / peak
        memory = f"{max(epoch.memory for epoch in found) / 2**30:8.2f}" if way.device.type == "cuda" else f"{'-':>8}"
        lines.append(f"{name:7} {total:8.2f} {sampled:18.2f} {trained:17.1f} {memory} {share:17.1%}")
    ratios = [plain.total / ours.total for plain, ours in zip(epochs["plain"], epochs["rfbench"], strict=True)]
    middle = statistics.median(ratios)
    lines.append(f"an epoch is {middle:.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f}, n={len(ratios)})")
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shapes", help="shapes, sd1, or a pipeline's folder")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--images", type=int, default=64, help="of an epoch; a multiple of 8")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps")
    parser.add_argument("--chunk-size", type=int, default=64)
    parser.add_argument("--decode-chunk-size", type=int)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    ways = make_ways(options)
    print(table(ways, measure(ways, options.repeats), options.precision))


if __name__ == "__main__":
    main()
