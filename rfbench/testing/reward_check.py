"""What a reward must keep to, tried on a few pictures: `rfbench reward check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rfbench.core.reward import Reward, check_shape
from rfbench.errors import InterfaceError, RfbenchError
from rfbench.worlds.shapes.grammar import parse
from rfbench.worlds.shapes.renderer import render

TOLERANCE = 1e-5  # of scores that must be equal: relative, and absolute where they are below 1
PROMPTS = (
    "a small red diamond at the bottom right on a white plain background",
    "a large purple square at the left on a yellow plain background",
    "a red circle left of an orange circle on a green striped background",
    "a yellow circle right of a purple square on a green plain background",
)


class Finding(NamedTuple):
    """One check: whether it passed, and what was seen."""

    check: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Report:
    """The findings; and the scores of the pictures with their prompts, where the reward gave one for each."""

    findings: Sequence[Finding]
    pictures: Sequence[str]
    prompts: Sequence[str]
    scores: Sequence[float] | None

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)


def check(reward: Reward, name: str, size: int) -> Report:
    """Scores eight pictures of ``size`` x ``size`` pixels in every way that must not, or must, make a difference."""
    labels, prompts, images = _pictures(size)

    def scores_of(rows: Sequence[int], prompts_of: Sequence[int] | None = None) -> Tensor:
        asked = [prompts[row] for row in (rows if prompts_of is None else prompts_of)]
        return _scores(reward, name, images[list(rows)], asked)

    everything = list(range(len(images)))
    try:
        scores = _scores(reward, name, images, prompts, raw=True)
    except InterfaceError as error:
        return Report([Finding("one score per image", False, str(error))], labels, prompts, None)
    findings = [
        Finding("one score per image", True, f"shape {tuple(scores.shape)}"),
        _precision(scores),
        _finite(scores),
        _equal("the same again", scores, scores_of(everything)),
        _equal("one by one", scores, torch.cat([scores_of([row]) for row in everything])),
        _equal("in reverse", scores.flip(0), scores_of(everything[::-1])),
        _prompts_matter(reward, scores, scores_of(everything, everything[1:] + everything[:1])),
    ]
    return Report(findings, labels, prompts, scores.double().tolist())


def _pictures(size: int) -> tuple[list[str], list[str], Tensor]:
    """Names, prompts and uint8 ``(8, 3, size, size)``: scenes as their prompts say, gradients and noise."""
    generator = torch.Generator().manual_seed(0)
    scenes = render([parse(prompt) for prompt in PROMPTS], generator).float()
    ramp = torch.linspace(0, 255, size).expand(3, size, size)
    noise = torch.randint(0, 256, (2, 3, size, size), generator=generator)
    images = [*functional.interpolate(scenes, (size, size)), ramp, 255 - ramp.mT, *noise]
    labels = [*("scene" for _ in PROMPTS), "gradient", "gradient", "noise", "noise"]
    return labels, [*PROMPTS, *PROMPTS], torch.stack([image.to(torch.uint8) for image in images])


@torch.no_grad()
def _scores(reward: Reward, name: str, images: Tensor, prompts: Sequence[str], *, raw: bool = False) -> Tensor:
    try:
        scores = reward(images, prompts)
    except RfbenchError:
        raise
    except Exception as error:
        raise RfbenchError(
            f"the reward {name!r} raised {type(error).__name__} on images {tuple(images.shape)}: {error}. If it takes "
            "images of one size alone, give it with --size"
        ) from error
    check_shape(scores, name, len(images), "the check")
    return scores.cpu() if raw else scores.double().cpu()


def _precision(scores: Tensor) -> Finding:
    half = scores.dtype in (torch.float16, torch.bfloat16)
    detail = f"{scores.dtype}".removeprefix("torch.")
    coarse = f"{detail} rounds scores near 0.27 to steps of {torch.finfo(scores.dtype).eps / 4:.0e}" if half else detail
    return Finding("precision", not half and not scores.is_complex(), coarse)


def _finite(scores: Tensor) -> Finding:
    broken = int((~scores.isfinite()).sum())
    shown = f"{broken} of {len(scores)} are not" if broken else f"from {scores.min():.5g} to {scores.max():.5g}"
    return Finding("finite", not broken, shown)


def _equal(what: str, expected: Tensor, found: Tensor) -> Finding:
    """Scores of the same image and prompt, in another call or beside other images."""
    distance = (found - expected).abs() / expected.abs().clamp(min=1)
    largest = float(distance.nan_to_num(nan=torch.inf).max())
    return Finding(what, largest <= TOLERANCE, f"largest difference {largest:.1e}, at most {TOLERANCE:.0e} allowed")


def _prompts_matter(reward: Reward, scores: Tensor, others: Tensor) -> Finding:
    """Whether other prompts change the scores, as the reward declares."""
    change = float((others - scores).abs().max())
    if reward.uses_prompts:
        detail = f"other prompts change scores by up to {change:.2g}"
        return Finding("reads its prompts", change > 0, detail if change else f"{detail}; if so, uses_prompts is False")
    return Finding("needs no prompts, as declared", change == 0, f"other prompts change scores by {change:.2g}")
