"""What one GPU does, in at most ten minutes and without a download: `make gpu`.

    [REFERENCE=path/to/ddpo-pytorch] python benchmarks/gpu/run.py [--minutes 10]

Stable Diffusion 1.x and XL at 512 pixels with random weights, on which speed does not depend; LoRA and full; every
precision: images sampled and pairs trained per second, the share of the card's own matrix peak, peak memory beside the
account of it, and ``start_error``. Before that a run that is stopped and resumed, and, from a folder of it, the loop of
kvablack/ddpo-pytorch. A cell that the card's memory or the minutes do not take is left out, with the reason.

Without a GPU the same goes through the embedded world's model on the CPU: whether the script works, not how fast.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

import torch

from rfbench.core.processes import Processes
from rfbench.errors import InputError
from rfbench.planning.arithmetic import arithmetic
from rfbench.planning.cards import CARDS, find_card
from rfbench.planning.chunk_size import settled
from rfbench.planning.device import check_device
from rfbench.planning.memory import device_peak, memory_account
from rfbench.planning.plan import Plan, make_outline, make_plan
from rfbench.running.progress import Quiet
from rfbench.running.provenance import device_name
from rfbench.running.trainer import train
from rfbench.suite.loading import load_suite
from rfbench_benchmarks.cost.epoch import Way, matrix_peak

XL = Path(__file__).parent / "xl"
MODELS = {
    "SD1.x": '{name="stable-diffusion",resolution=512}',
    "XL": f'{{name="stable-diffusion",path="{XL}",resolution=512}}',
}
TINY = {"shapes": '{name="shapes"}'}
REFERENCE_BATCHES, REFERENCE_EPOCHS = (8, 32, 64), 3
SLOW = 0.2  # of the peak: what a cell is expected to reach at least
HEADING = "cell                   chunk  images/s  pairs/s  of peak    GiB  account start_error"


@dataclass(frozen=True)
class Size:
    """Of an epoch that is timed."""

    images: int
    steps: int


def plan_of(model: str, method: str, precision: str, device: str, size: Size) -> Plan:
    """PRDP without a clip, so that every pair is trained, on a reward that needs no files."""
    settings = [
        f"model={model}",
        'reward={name="jpeg-incompressibility"}',
        "evaluation.held_out_rewards=[]",
        f"budget.reward_queries_per_epoch={size.images}",
        "algorithms.prdp.images_per_prompt=8",
        "algorithms.prdp.config={clip_range='off'}",
        f"sampler={{kind='ddpm',num_steps={size.steps},guidance_scale=5.0}}",
        f"finetune.method={method}",
        f"compute={{device='{device}',precision='{precision}',chunk_size='auto',gradient_checkpointing=true}}",
    ]
    outline = make_outline(load_suite("small-shapes", settings), "prdp", seed=0)
    prompts = {name: part.make() for name, part in outline.prompt_sets.items()}
    return Plan(**vars(outline), prompts=prompts, evaluation_prompts={})


def epoch_flops(plan: Plan) -> float:
    """Operations of the denoiser in an epoch."""
    counted, cost = arithmetic(plan), plan.epoch_cost()
    assert counted is not None
    return counted.forward_flops * (cost.forwards + counted.backward_forwards * cost.backwards)


def cell(plan: Plan, processes: Processes, seconds_left: float) -> str:
    """The second of two epochs; an ``InputError`` where the card, or the time, cannot take it."""
    device = processes.device
    plan = settled(plan, device)
    check_device(plan, device)
    chunk, precision = plan.suite.compute.pairs_per_call, plan.suite.compute.precision
    card = find_card(device_name(device))
    peak = card.rate(precision) if card else matrix_peak(device, precision)
    expected = 2 * epoch_flops(plan) / (SLOW * peak)
    if expected > seconds_left:
        raise InputError(f"two epochs may take {expected:.0f} s, and {max(seconds_left, 0):.0f} s are left")
    way = Way(plan, processes, chunk, chunk)
    way.epoch(0)
    epoch = way.epoch(1)
    images = plan.suite.budget.reward_queries_per_epoch
    seconds = epoch.seconds["sample"] + epoch.seconds["reference"] + epoch.seconds["update"]
    share = epoch_flops(plan) / seconds / peak
    on_gpu = device.type == "cuda"
    memory = f"{torch.cuda.max_memory_allocated(device) / 2**30:6.1f}" if on_gpu else f"{'-':>6}"
    account = device_peak(memory_account(plan)) / 2**30
    return (
        f"{chunk:5} {images / epoch.seconds['sample']:9.2f} "
        f"{images * plan.objective_steps / epoch.seconds['update']:8.1f} {share:8.1%} {memory} "
        f"{account:8.2f} {way.learner.start_error or 0:.1e}"
    )


class StopsOnce(Quiet):
    """Interrupts the run after its first epoch."""

    def on_epoch(self, record: object) -> None:
        raise KeyboardInterrupt


def resume_difference(device: str) -> float:
    """The largest difference in an evaluation between a run that was stopped and resumed, and one that was not."""
    overrides = ["epochs=2", "evaluation.every=1", "algorithms.prdp.images_per_prompt=4", f"compute.device={device}"]
    plan = make_plan(load_suite("tiny-shapes", [*overrides, "budget.reward_queries_per_epoch=8"]), "prdp", seed=0)
    with tempfile.TemporaryDirectory() as folder:
        whole = _means(train(plan, Path(folder) / "whole", Quiet()))
        with suppress(KeyboardInterrupt):
            train(plan, Path(folder) / "stopped", StopsOnce())
        resumed = _means(train(plan, Path(folder) / "stopped", Quiet(), resume=True))
    assert len(whole) == len(resumed)
    return max(abs(a - b) for a, b in zip(whole, resumed, strict=True))


def _means(folder: Path) -> list[float]:
    return [json.loads(line)["mean"] for line in (folder / "evals.jsonl").read_text().splitlines()]


def against_reference(folder: Path, plan: Plan, processes: Processes) -> Iterator[str]:
    """How many times as fast rfbench is as the other loop on the same network and batch: the median of epochs in turns.

    The first of each warms up.
    """
    from rfbench_benchmarks.gpu import reference

    images, steps = plan.suite.budget.reward_queries_per_epoch, plan.suite.sampler.num_steps
    for batch in REFERENCE_BATCHES:
        if images % batch:
            continue
        way = Way(plan, processes, batch, batch)
        ratios = []
        for number in range(1 + REFERENCE_EPOCHS):
            ours = way.epoch(number).seconds
            theirs = reference.epoch(folder, way.policy, images, steps, batch, way.meter.lap)
            ratios.append((theirs[0] / ours["sample"], theirs[1] / ours["update"]))
        sampling, training = (median(values) for values in zip(*ratios[1:], strict=True))
        yield f"batch {batch}: sampling {sampling:.2f} times as fast as ddpo-pytorch, training {training:.2f} times"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    end = time.monotonic() + 60 * parser.parse_args().minutes
    on_gpu = torch.cuda.is_available()
    device, size = ("cuda", Size(32, 4)) if on_gpu else ("cpu", Size(64, 4))
    precisions = ("bf16", "fp16", "tf32", "fp32") if on_gpu else ("fp32",)
    models = MODELS if on_gpu else TINY
    first = plan_of(next(iter(models.values())), "lora", precisions[0], device, size)
    name = device_name(Processes(first.suite.compute).device)
    print(f"{name}: {size.images} images of {size.steps} steps, guidance 5, gradient checkpointing; random weights")
    if not on_gpu:
        print("torch sees no GPU: the embedded world's small model on the CPU, whose speed says nothing of a GPU")
    elif find_card(name) is None:
        known = ", ".join(card.name for card in CARDS)
        print(f"peak: of a large matrix product here, since its published rate is not known ({known} are)")
    print(f"difference between a run and the same stopped and resumed: {resume_difference(device):.1e}")
    folder = os.environ.get("REFERENCE")
    if folder:
        try:
            for line in against_reference(Path(folder), first, Processes(first.suite.compute)):
                print(line, flush=True)
        except torch.OutOfMemoryError as error:
            print(f"ddpo-pytorch: left out: {str(error).splitlines()[0]}")
    else:
        print("ddpo-pytorch: left out, since REFERENCE names no folder of it")
    print(HEADING)
    for precision, (label, model), method in product(precisions, models.items(), ("lora", "full")):
        try:
            plan = plan_of(model, method, precision, device, size)
            row = cell(plan, Processes(plan.suite.compute), end - time.monotonic())
        except (InputError, torch.OutOfMemoryError) as error:
            row = f"left out: {str(error).splitlines()[0]}"
        print(f"{f'{label} {method} {precision}':22} {row}", flush=True)
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
