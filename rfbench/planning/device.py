"""What a suite asks of a device, memory and arithmetic, against the GPUs that are here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from rfbench.errors import InputError
from rfbench.planning.arithmetic import Arithmetic, arithmetic
from rfbench.planning.cards import USABLE
from rfbench.planning.memory import MemoryPart, device_peak, device_phases, memory_account
from rfbench.planning.plan import Outline
from rfbench.suite.suite import Suite

CAPABILITIES = {"tf32": (8, 0), "bf16": (8, 0)}  # from which on a GPU's matrix units know them


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch sees; ``capability`` is its compute capability, major and minor."""

    name: str
    bytes: int
    capability: tuple[int, int]

    @classmethod
    def of(cls, properties: Any) -> Gpu:
        """From ``torch.cuda.get_device_properties``."""
        return cls(properties.name, properties.total_memory, (properties.major, properties.minor))


@dataclass(frozen=True)
class Demand:
    """What a run asks of a device.

    Attributes:
        components: the account of memory.
    """

    components: list[MemoryPart]
    arithmetic: Arithmetic

    @property
    def bytes(self) -> int:
        """On the GPU, at the most demanding moment."""
        return device_peak(self.components)


def gpus() -> list[Gpu]:
    """The GPUs that are here."""
    if not torch.cuda.is_available():
        return []
    return [Gpu.of(torch.cuda.get_device_properties(index)) for index in range(torch.cuda.device_count())]


def demand(outline: Outline) -> Demand | None:
    """What the run asks; None where the model's architecture cannot be told without its files."""
    counted = arithmetic(outline)
    return None if counted is None else Demand(memory_account(outline), counted)


def device_problem(suite: Suite, asked: Demand | None, here: list[Gpu]) -> str | None:
    """Why the suite cannot run on the device that it asks for, and which setting to change; None where it can."""
    if suite.compute.device == "cpu":
        return None
    if not here:
        if suite.compute.device == "cuda":
            return "compute.device is 'cuda', but torch sees no GPU; use --set compute.device=cpu or auto"
        return None
    oldest, smallest = min(here, key=lambda gpu: gpu.capability), min(here, key=lambda gpu: gpu.bytes)
    problem = precision_problem(suite.compute.precision, oldest.name, oldest.capability)
    return problem or (memory_problem(suite, asked.components, smallest, USABLE) if asked else None)


def check_device(outline: Outline, device: torch.device) -> None:
    """An ``InputError`` where the run cannot work on its GPU: told before any weights load."""
    if device.type != "cuda":
        return
    suite, card = outline.suite, Gpu.of(torch.cuda.get_device_properties(device))
    problem = precision_problem(suite.compute.precision, card.name, card.capability)
    problem = problem or memory_problem(suite, memory_account(outline), card, 1.0)
    if problem is not None:
        raise InputError(problem)


def precision_problem(precision: str, card: str, capability: tuple[int, int]) -> str | None:
    """What a card of some compute capability lacks for ``compute.precision``."""
    needed = CAPABILITIES.get(precision, (0, 0))
    if capability >= needed:
        return None
    return (
        f"compute.precision is {precision!r}, which needs a GPU of compute capability {needed[0]}.{needed[1]}, but "
        f"{card} has {capability[0]}.{capability[1]}; use --set compute.precision=fp16 or fp32"
    )


def memory_problem(suite: Suite, components: list[MemoryPart], card: Gpu, share: float) -> str | None:
    """Why a run does not fit into a share of a card's memory, and the setting to change."""
    needed = device_peak(components)
    if needed <= share * card.bytes:
        return None
    largest = max((part for part in components if part.when != "host"), key=lambda part: part.bytes)
    usable = f", of which {share:.0%} can be used" if share < 1 else ""
    return (
        f"with compute.chunk_size {suite.compute.chunk_size} a run needs about {needed / 2**30:.1f} GiB of GPU memory, "
        f"{largest.bytes / 2**30:.1f} GiB of them for {largest.name} ({largest.when}), but {card.name} has "
        f"{card.bytes / 2**30:.1f} GiB{usable}; {_advice(suite, components, int(USABLE * card.bytes))}"
    )


def _advice(suite: Suite, components: list[MemoryPart], usable: int) -> str:
    """The setting to change first: of the phase that asks for the most, unless the weights alone are too many."""
    always, phases = device_phases(components)
    largest = max(phases, key=lambda phase: phases[phase]) if phases else ""
    compute = suite.compute
    if always + phases.get("update", 0) // compute.pairs_per_call > usable:
        if suite.finetune.method == "full":
            return "train a LoRA instead, which is another experiment: --set finetune.method=lora"
        return "its weights alone ask for a larger card"
    if largest == "encoding":
        return "its text encoders ask for a larger card while prompts are encoded"
    if largest == "decoding" and (compute.decode_chunk_size or compute.pairs_per_call) > 1:
        return f"--set compute.decode_chunk_size={(compute.decode_chunk_size or compute.pairs_per_call) // 2}"
    if largest == "update" and not compute.gradient_checkpointing:
        return "--set compute.gradient_checkpointing=true"
    if compute.pairs_per_call > 1:
        return f"--set compute.chunk_size={compute.pairs_per_call // 2}"
    return "a larger card is needed"
