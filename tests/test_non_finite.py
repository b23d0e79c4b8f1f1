"""Numbers that are not finite stop a run where they arise, before a reward scores what is no picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rfbench.core.finite import Batch
from rfbench.core.model import to_uint8
from rfbench.errors import NonFiniteError
from rfbench.models.pipeline_folder import MODEL
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from tests import tiny


def poison(folder: Path, part: str, key: str, value: float) -> None:
    state = load_file(folder / part / MODEL)
    state[key].view(-1)[0] = value
    save_file(state, folder / part / MODEL, metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("part", "key", "what"),
    [
        ("vae", "decoder.conv_in.bias", "the decoded pixels are not finite at the evaluation of 'seen' after epoch 0"),
        (
            "unet",
            "conv_out.bias",
            "the latents of step 1 of 5 are not finite at the evaluation of 'seen' after epoch 0",
        ),
    ],
)
def test_weights_that_are_not_finite(
    pipeline: Path, prompt_file: Path, tmp_path: Path, part: str, key: str, what: str, value: float
) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(pipeline, folder)
    poison(folder, part, key, value)
    with pytest.raises(NonFiniteError) as raised:
        train(tiny.plan(tiny.make_suite(folder, prompt_file)), tmp_path / "results", Quiet())
    assert f"{what} for image 0, prompt 'a " in str(raised.value)
    run = tmp_path / "results/tiny/prdp/seed-0/run.json"
    assert json.loads(run.read_text())["status"] == "failed"


def test_a_decoder_that_breaks_in_training_names_the_image(pipeline: Path, prompt_file: Path) -> None:
    """Only the second picture of the third chunk: with its prompt, and the others' number."""
    run = tiny.make_run(tiny.plan(tiny.make_suite(pipeline, prompt_file, compute={"chunk_size": 4, "device": "cpu"})))
    decode, calls = run.policy.model.vae.decode, []

    def third_time(latents: Tensor, **options: bool) -> tuple[Tensor]:
        calls.append(len(latents))
        images = decode(latents, **options)[0]
        if len(calls) == 3:
            images[1] = torch.nan
        return (images,)

    run.policy.model.vae.decode = third_time
    with pytest.raises(NonFiniteError) as raised:
        run.rollout(0)
    assert "the decoded pixels are not finite at epoch 1 for image 9, prompt 'a" in str(raised.value)
    assert "(1 of 4 images of its batch)" in str(raised.value)


def test_a_reference_that_breaks(pipeline: Path, prompt_file: Path) -> None:
    """The policy itself still draws: the KL, and what an algorithm compares with, have no value."""
    run = tiny.make_run(tiny.plan(tiny.make_suite(pipeline, prompt_file)))
    assert run.policy.frozen_copy is not None
    next(iter(run.policy.frozen_copy.parameters())).data.fill_(torch.inf)
    with pytest.raises(NonFiniteError, match=r"the KL from the reference in step 1 is not finite at the evaluation"):
        run.evaluator.evaluate("seen", 2)
    with pytest.raises(
        NonFiniteError, match=r"the reference's log-probs of step 1 are not finite at epoch 1 for image 0"
    ):
        run.rollout(0)


@pytest.mark.parametrize("learning_rate", [1e30, 1e10])
def test_the_last_good_checkpoint_is_one_that_worked(
    pipeline: Path, prompt_file: Path, tmp_path: Path, learning_rate: float
) -> None:
    """An update that destroys the weights leaves the checkpoint before it, although no evaluation is due."""
    suite = tiny.make_suite(pipeline, prompt_file)
    settings = suite.algorithms["rwr"].model_dump() | {"optimizer": {"learning_rate": learning_rate}}
    evaluation = suite.evaluation.model_dump() | {"every": 10}
    suite = tiny.make_suite(pipeline, prompt_file, algorithms={"rwr": settings}, evaluation=evaluation)
    with pytest.raises(NonFiniteError):
        train(tiny.plan(suite, "rwr"), tmp_path, Quiet())
    (kept,) = (tmp_path / "tiny/rwr/seed-0/checkpoints").iterdir()
    assert kept.name == "epoch-000000"
    saved = load_file(kept / "weights.safetensors").values()
    assert max(float(value.abs().max()) for value in saved) < 100


@pytest.mark.parametrize("spoil", [lambda x: x / 0, lambda x: x * torch.nan, lambda x: -x / 0])
def test_no_picture_is_black_because_it_has_no_value(spoil: Callable[[Tensor], Tensor]) -> None:
    images = torch.ones(3, 3, 2, 2)
    images[1] = spoil(images[1])
    with pytest.raises(NonFiniteError, match="1 of 3 decoded images are not finite"):
        to_uint8(images)
    with pytest.raises(NonFiniteError, match=r"the noise is not finite at epoch 7 for image 11, prompt 'b' \(1 of 3"):
        Batch("epoch 7", ["a", "b", "c"], 10).require_finite(images, "the noise is")
