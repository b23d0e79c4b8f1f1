"""Precision and memory settings: what they may change, and what not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import nn

from rfbench.errors import NonFiniteError
from rfbench.models.stable_diffusion import StableDiffusion, StableDiffusionConfig
from rfbench.plugins.component import find_component
from rfbench.running.assembly import Run
from rfbench.suite.suite import PluginRef, Suite
from tests import tiny
from tests.models import pipelines

pytestmark = pytest.mark.slow

LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}
CPU = torch.device("cpu")


def make(
    suite: Suite, label: str = "prdp", *, method: str = "full", model: dict[str, Any] | None = None, **compute: Any
) -> Run:
    data = suite.model_dump() | {"finetune": {"method": method}}
    data["compute"] = {"chunk_size": 8, "device": "cpu"} | compute
    if model is not None:
        data["model"] = model
        data["sampler"] |= {"kind": "flow-sde"} if model["name"] == "stable-diffusion-3" else {}
    return tiny.make_run(tiny.plan(Suite.model_validate(data), label))


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", ["xl", "sd3"])
def test_frozen_weights_in_the_compute_dtype_change_no_bit(
    folders: dict[str, Path], suite: Suite, family: str, method: str, precision: str
) -> None:
    """Autocast over fp32 weights would cast them at each call: the same numbers, at twice the memory."""
    table = pipelines.model(family, folders[family])
    run = make(suite, method=method, model=table, precision=precision)
    frozen = run.policy.denoiser if method == "lora" else run.policy._frozen
    assert isinstance(frozen, nn.Module)
    stored = {type(m) for m in frozen.modules() for p in m.parameters(recurse=False) if p.dtype == LOW[precision]}
    assert stored == {nn.Linear, nn.Conv2d}
    assert all(parameter.dtype == torch.float32 for parameter in run.policy.trainable().values())

    plain = find_component("models", PluginRef(**table)).make(CPU)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([0.1, 0.6]) if family == "sd3" else torch.tensor([1, 601])
    condition = run.policy.encode_prompts(["a cat", "a dog"])
    with torch.no_grad():
        with torch.autocast("cpu", dtype=LOW[precision]):
            expected = plain.predict(plain.denoiser, latents, timesteps, condition).float()
        for weights in ("policy", "reference"):
            found = run.policy.predict(latents, timesteps, condition, weights=weights, guided=False)
            assert torch.equal(found, expected)


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize(("family", "label"), [("sd1", "prdp"), ("sd1", "ddpo"), ("sd1", "dpok"), ("sd3", "ddpo")])
def test_the_ratio_starts_at_one_in_low_precision(
    folders: dict[str, Path], suite: Suite, family: str, label: str, precision: str
) -> None:
    model = pipelines.model(family, folders[family])
    run = make(suite, label, method="lora", model=model, precision=precision, gradient_checkpointing=True)
    rollout = run.rollout(0)
    assert rollout.log_probs.dtype == torch.float32
    run.update(rollout)
    assert run.learner.start_error is not None
    assert run.learner.start_error < 1e-6
    assert run.meter.counters.optimizer_steps == 2
    assert run.learner.grad_norm is not None
    assert 0 < run.learner.grad_norm < 1e3  # the loss scale is taken out again


def test_the_loss_scale_survives_a_resume_and_skips_what_overflows(suite: Suite) -> None:
    run, plain = make(suite, precision="fp16"), make(suite)
    weights = [parameter.clone() for parameter in run.policy.trainable().values()]
    run.learner.begin(run.rollout(0))

    def backward(loss: float) -> None:
        """A loss whose gradient is ``loss`` for every parameter."""
        run.learner.backward(loss * sum((p.sum() for p in run.policy.trainable().values()), torch.zeros(())))

    backward(1e34)  # times 65,536 it overflows
    run.learner.step()
    assert all(torch.equal(a, b) for a, b in zip(weights, run.policy.trainable().values(), strict=True))
    assert run.meter.counters.optimizer_steps == 0
    state = run.learner.state_dict()
    assert state["scaler"]["scale"] == 32768
    run.learner.load_state_dict(state)
    assert run.learner.state_dict()["scaler"] == state["scaler"]
    backward(1.0)
    run.learner.step()
    assert run.meter.counters.optimizer_steps == 1
    run.learner.end()

    def step_on_infinity() -> None:
        for parameter in run.policy.trainable().values():
            parameter.grad = torch.full_like(parameter, float("inf"))
        backward(1.0)
        run.learner.step()

    for _ in range(15):
        step_on_infinity()
    assert run.learner.state_dict()["scaler"]["scale"] == 1
    with pytest.raises(NonFiniteError, match="the gradient's norm is"):
        step_on_infinity()
    assert "scaler" not in plain.learner.state_dict()


@pytest.mark.parametrize(("family", "label"), [("sd1", "dpok"), ("sd1", "rwr"), ("sd3", "ddpo")])
def test_gradient_checkpointing_changes_no_gradient(
    folders: dict[str, Path], suite: Suite, family: str, label: str
) -> None:
    """With a LoRA, whose reference is the same network with the adapter off, between forward and backward."""
    found = []
    for checkpointing in (False, True):
        model = pipelines.model(family, folders[family])
        run = make(suite, label, method="lora", model=model, gradient_checkpointing=checkpointing)
        gradients = tiny.record_gradients(run)
        run.update(run.rollout(0))
        found.append(gradients)
    plain, checkpointed = found
    assert len(plain) == len(checkpointed) > 0
    for ours, theirs in zip(checkpointed, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-5)


def test_decoding_in_pieces_gives_the_same_pixels(suite: Suite) -> None:
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    whole, pieces = make(suite).policy.decode(latents), make(suite, decode_chunk_size=2).policy.decode(latents)
    assert whole.shape == (5, 3, 16, 16)
    assert (whole.int() - pieces.int()).abs().max() <= 1


@pytest.mark.parametrize("label", ["prdp", "rwr"])
def test_a_compiled_network_sees_few_shapes_and_computes_the_same(suite: Suite, label: str) -> None:
    """An epoch of 12 images in chunks of 8 ends in a smaller chunk, which is filled up."""
    results = []
    for compiled in (True, False):
        run, rows = make(suite, label, compile=compiled), set()
        run.policy.denoiser.register_forward_pre_hook(lambda _, inputs, rows=rows: rows.add(len(inputs[0])))
        with torch.compiler.set_stance("force_eager"):
            rollout = run.rollout(0)
            run.update(rollout)
        results.append((rows, rollout.clean_latents, run.policy.state_dict(), run.meter.counters))
    (rows, latents, weights, counters), (_, expected_latents, expected_weights, expected_counters) = results
    assert rows <= {8, 16}
    assert counters == expected_counters  # what is filled up is not counted
    torch.testing.assert_close(latents, expected_latents, atol=1e-5, rtol=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected_weights[name], atol=3e-4, rtol=0)


def test_attention_is_pytorchs_own(folders: dict[str, Path]) -> None:
    model = StableDiffusion(StableDiffusionConfig(path=str(folders["sd1"])), CPU)
    processors = model.denoiser.attn_processors.values()  # type: ignore[union-attr,operator]
    assert {type(processor) for processor in processors} == {AttnProcessor2_0}


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_tf32_is_used_only_where_it_is_asked_for(suite: Suite, precision: str) -> None:
    torch.backends.cudnn.allow_tf32 = precision != "tf32"
    make(suite, precision=precision)
    assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
