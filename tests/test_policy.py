"""The policy, the rollout and the learner: one code path, keyed noise, the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from rfbench.errors import InputError
from rfbench.running.assembly import Run
from rfbench.suite.suite import Suite
from tests import tiny


def make(suite: Suite, label: str = "prdp", **changes: Any) -> Run:
    return tiny.make_run(tiny.plan(Suite.model_validate(suite.model_dump() | changes), label))


def gradient(run: Run) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in run.policy.trainable().values() if p.grad is not None])


def test_samples_equal_the_diffusers_pipeline(suite: Suite, pipeline: Path) -> None:
    """The same initial latents and step noise through diffusers' own pipeline and DDPM scheduler."""
    run = make(suite)
    rollout = run.rollout(0)
    assert rollout.latents is not None
    pipe = StableDiffusionPipeline.from_pretrained(pipeline, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config, variance_type="fixed_small", clip_sample=False)
    scheduler.set_timesteps(5)
    image = 3
    prompt = rollout.prompts[int(rollout.groups[image])]
    embeds, empty = pipe.encode_prompt(prompt, "cpu", 1, True)
    latents = rollout.latents[image, :1]
    with torch.no_grad():
        for step, timestep in enumerate(scheduler.timesteps):
            pair = pipe.unet(latents.repeat(2, 1, 1, 1), timestep, torch.cat([empty, embeds])).sample
            predicted = pair[0] + 3.0 * (pair[1] - pair[0])
            mean = scheduler.step(predicted[None], timestep, latents, generator=Zeros()).prev_sample
            own = run.policy.step_mean(
                latents, torch.tensor([step]), {k: v[rollout.groups[[image]]] for k, v in rollout.condition.items()}
            )
            torch.testing.assert_close(own, mean, atol=1e-5, rtol=1e-5)
            latents = rollout.latents[image, step + 1][None]
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    expected = pipe.image_processor.postprocess(decoded, output_type="np")[0]
    ours = run.policy.decode(rollout.clean_latents[[image]])[0].permute(1, 2, 0).numpy()
    assert abs(ours / 255 - expected).max() <= 0.5 / 255 + 1e-5


class Zeros(torch.Generator):
    """diffusers draws the step's noise from this; a zeroed draw leaves the mean."""


@pytest.fixture(autouse=True)
def _no_step_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers.schedulers.scheduling_ddpm as module

    drawn = module.randn_tensor
    monkeypatch.setattr(
        module,
        "randn_tensor",
        lambda shape, generator=None, **k: drawn(shape, **k) * (not isinstance(generator, Zeros)),
    )


@pytest.mark.parametrize("finetune", [{"method": "full"}, {"method": "lora"}])
@pytest.mark.parametrize("label", ["prdp", "ddpo", "dpok"])
def test_ratio_is_one_before_the_first_update(suite: Suite, label: str, finetune: dict[str, str]) -> None:
    run = make(suite, label, finetune=finetune)
    rollout = run.rollout(0)
    torch.testing.assert_close(run.learner.all_log_probs(rollout), rollout.log_probs, atol=1e-6, rtol=0)
    run.update(rollout)
    assert run.learner.start_error is not None
    assert run.learner.start_error < 1e-6
    assert (run.learner.all_log_probs(rollout) - rollout.log_probs).abs().max() > 1e-5  # and then it moves


@pytest.mark.parametrize("finetune", [{"method": "full"}, {"method": "lora"}])
def test_the_reference_stays_what_the_policy_was(suite: Suite, finetune: dict[str, str]) -> None:
    run = make(suite, finetune=finetune)
    first = run.rollout(0)
    assert first.reference_log_probs is not None
    assert torch.equal(first.log_probs, first.reference_log_probs)  # before training the two are one
    before = run.policy.step_mean(first.clean_latents[:2], torch.tensor([0, 1]), _two(first), weights="reference")
    run.update(first)
    after = run.policy.step_mean(first.clean_latents[:2], torch.tensor([0, 1]), _two(first), weights="reference")
    assert torch.equal(before, after)
    second = run.rollout(1)
    assert second.reference_log_probs is not None
    assert (second.log_probs - second.reference_log_probs).abs().max() > 1e-5


def _two(rollout: Any) -> dict[str, torch.Tensor]:
    return {name: value[:2] for name, value in rollout.condition.items()}


@pytest.mark.parametrize("smaller", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("label", tiny.ALGORITHMS)
def test_chunk_size_changes_neither_samples_nor_gradients(suite: Suite, label: str, smaller: int) -> None:
    results = []
    for chunk_size in (12, smaller):
        run = make(suite, label, compute={"chunk_size": chunk_size, "device": "cpu"})
        rollout = run.rollout(0)
        gradients: list[torch.Tensor] = []
        take_step = run.learner.step

        def record_then_step(run: Run = run, out: list[torch.Tensor] = gradients, step: Any = take_step) -> None:
            if not out:
                out.append(gradient(run))
            step()

        run.learner.step = record_then_step  # type: ignore[method-assign]
        rewards = rollout.rewards
        if results:  # a pixel between two grey levels may go either way, and the JPEG be a byte longer
            torch.testing.assert_close(rewards, results[0][1], atol=5e-3, rtol=0.0)
            rollout.rewards = results[0][1]
        run.update(rollout)
        results.append((rollout, rewards, gradients[0]))
    (first, _, expected), (rollout, _, found) = results
    torch.testing.assert_close(rollout.clean_latents, first.clean_latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-6 * float(expected.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("label", tiny.ALGORITHMS)
def test_counters_equal_the_plan(suite: Suite, label: str, offline: bool) -> None:
    settings = suite.algorithms[label].model_dump() | {"sample_from": "reference" if offline else "policy"}
    if offline and label in ("ddpo", "dpok"):
        with pytest.raises(InputError, match=f"{label} is defined only for samples of the policy itself; use --set"):
            make(suite, label, algorithms={label: settings})
        return
    run = make(suite, label, algorithms={label: settings})
    run.evaluator(0)
    run.update(run.rollout(0))
    cost, counters = run.plan.epoch_cost(), run.meter.counters
    assert run.plan.objective_steps == len(run.policy.schedule.objective_steps)
    assert counters.reward_queries == counters.images == 12
    assert counters.optimizer_steps == 2
    if label == "prdp":  # pairs without a coefficient (all clipped) need no network call
        assert counters.denoiser_forwards <= cost.forwards
        assert counters.denoiser_backwards <= cost.backwards
    else:
        assert (counters.denoiser_forwards, counters.denoiser_backwards) == (cost.forwards, cost.backwards)


def test_offline_rollouts_come_from_the_reference(suite: Suite) -> None:
    """They do not depend on what was trained; the log-probs do, and the ratio still starts at 1."""
    settings = suite.algorithms["prdp"].model_dump() | {"sample_from": "reference"}
    run = make(suite, algorithms={"prdp": settings})
    untrained, online = run.rollout(1), make(suite).rollout(1)
    assert untrained.latents is not None
    assert online.latents is not None
    assert torch.equal(untrained.latents, online.latents)  # before training the policy is the reference
    run.update(run.rollout(0))
    trained = run.rollout(1)
    assert trained.latents is not None
    assert torch.equal(trained.latents, untrained.latents)
    assert torch.equal(trained.rewards, untrained.rewards)
    assert trained.reference_log_probs is not None
    assert untrained.reference_log_probs is not None
    assert torch.equal(trained.reference_log_probs, untrained.reference_log_probs)
    assert (trained.log_probs - trained.reference_log_probs).abs().max() > 1e-5
    run.update(trained)
    assert run.learner.start_error is not None
    assert run.learner.start_error < 1e-6


def test_initial_latents_shared_in_a_group(suite: Suite) -> None:
    settings = suite.algorithms["prdp"].model_dump() | {"shared_initial_latents": True}
    shared, own = make(suite, algorithms={"prdp": settings}).rollout(0).latents, make(suite).rollout(0).latents
    assert shared is not None
    assert own is not None
    initial = shared[:, 0].unflatten(0, (3, 4))
    assert torch.equal(initial, initial[:, :1].expand_as(initial))
    assert not torch.equal(initial[0], initial[1])
    assert (shared[0, 1] - shared[1, 1]).abs().max() > 1e-3  # the steps' noise stays each image's own


def test_v_prediction_is_the_same_chain(tmp_path: Path, suite: Suite) -> None:
    """A v-prediction model's step equals diffusers' own v-prediction step."""
    folder = tiny.make_pipeline(tmp_path / "v", prediction_type="v_prediction")
    run = make(
        suite, model={"name": "stable-diffusion", "path": str(folder)}, sampler={"num_steps": 5, "guidance_scale": 1.0}
    )
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    condition = run.policy.encode_prompts(["a cat"])
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler", clip_sample=False)
    assert scheduler.config.prediction_type == "v_prediction"
    scheduler.set_timesteps(5)
    for step, timestep in enumerate(scheduler.timesteps):
        with torch.no_grad():
            output = run.policy.denoiser(latents, timestep, condition["text"]).sample
            own = run.policy.step_mean(latents, torch.tensor([step]), condition)
        expected = scheduler.step(output, timestep, latents, generator=Zeros()).prev_sample
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-5)
