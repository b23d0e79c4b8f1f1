"""The embedded world as a flow: trained on velocities, and the diffusion seen as one."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from rfbench.core.noising.flow import AsFlow
from rfbench.core.policy import Policy
from rfbench.core.processes import Processes
from rfbench.core.rollout import denoise
from rfbench.errors import DamagedFileError
from rfbench.planning.plan import make_outline, make_plan
from rfbench.running.assembly import make_run
from rfbench.suite.loading import load_suite
from rfbench.suite.settings import Settings
from rfbench.suite.suite import Compute, Finetune, Sampler
from rfbench.worlds.shapes import gold, weights
from rfbench.worlds.shapes.grammar import index_of, is_unseen, parse, split
from rfbench.worlds.shapes.model import ShapesConfig, ShapesFlow, ShapesModel
from rfbench.worlds.shapes.pretrain import latents, unet
from rfbench.worlds.shapes.pretrain.data import to_signed
from rfbench.worlds.shapes.pretrain.sampling import EPSILON, FLOW, Base, Objective
from rfbench.worlds.shapes.renderer import render

CPU = torch.device("cpu")
PROMPTS = list(split("small"))


def images(model: ShapesModel, prompts: list[str], kind: str, num_steps: int = 10, **settings: float) -> Tensor:
    """One of each prompt as a run draws them, from noise that depends on the number of steps alone."""
    chain = model.process.chain(Sampler(kind=kind, num_steps=num_steps, **settings))
    policy = Policy(model, chain, guidance_scale=3.0, finetune=Finetune())
    noise = torch.randn(len(prompts), num_steps + 1, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        *_, last = denoise(policy, policy.encode_prompts(prompts), noise)
        return model.decode(last.next_latents)


@pytest.fixture(scope="module")
def flow() -> ShapesFlow:
    return ShapesFlow(Settings(), CPU)


def test_a_damaged_flow_is_named_before_anything_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(weights.FLOW, tmp_path / "flow")
    damaged = tmp_path / "flow" / "text_encoder" / "model.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    monkeypatch.setattr(weights, "FLOW", tmp_path / "flow")
    with pytest.raises(DamagedFileError, match=r"text_encoder/model\.safetensors is damaged"):
        ShapesFlow(Settings(), CPU)


def test_the_flow_is_the_diffusions_networks_with_other_numbers(flow: ShapesFlow) -> None:
    """The VAE's are the same, so that both draw with one pencil."""
    diffusion = ShapesModel(ShapesConfig(), CPU)
    assert str(flow.denoiser.config) == str(diffusion.denoiser.config)  # type: ignore[union-attr]
    pairs = {
        "UNet": (flow.denoiser, diffusion.denoiser),
        "text encoder": (flow.text.encoders[0], diffusion.text.encoders[0]),
        "VAE": (flow.vae, diffusion.vae),
    }
    for name, (own, other) in pairs.items():
        states = own.state_dict(), other.state_dict()
        assert states[0].keys() == states[1].keys()
        same = [torch.equal(value, states[1][key]) for key, value in states[0].items()]
        assert all(same) if name == "VAE" else sum(same) < 0.05 * len(same)


def test_the_network_says_eps_minus_x0_at_a_thousand_times_the_share(flow: ShapesFlow) -> None:
    """Written out for noised renders, beside what it would be of other conventions: less of the variance is left."""
    generator = torch.Generator().manual_seed(0)
    pictures = to_signed(render([parse(prompt) for prompt in PROMPTS], generator))
    vae = AutoencoderKL.from_pretrained(weights.PIPELINE / "vae")
    with torch.no_grad():
        clean = vae.encode(pictures).latent_dist.mean * vae.config.scaling_factor
        noise, share = torch.randn(clean.shape, generator=generator), 0.6
        noised = (1 - share) * clean + share * noise
        condition = {"text": torch.cat([flow.encode(prompt)["text"] for prompt in PROMPTS])}
        rows = torch.full((len(PROMPTS),), share)
        said = flow.predict(flow.denoiser, noised, rows, condition)
        plain = flow.denoiser(noised, 1000 * rows, condition["text"]).sample  # type: ignore[operator]
        unscaled = flow.denoiser(noised, rows, condition["text"]).sample  # type: ignore[operator]
    torch.testing.assert_close(said, plain, rtol=0, atol=0)

    def unexplained(prediction: Tensor, target: Tensor) -> float:
        return float((prediction - target).square().mean() / target.square().mean())

    found = unexplained(said, noise - clean)
    assert found < 0.25
    assert unexplained(unscaled, noise - clean) > 1.5 * found
    for other in (clean - noise, noise, clean):
        assert unexplained(said, other) > 1.5 * found
    torch.testing.assert_close(flow.process.clean_from(said, noised, rows), noised - share * said)


def test_the_ode_is_that_of_diffusers_flow_scheduler(flow: ShapesFlow) -> None:
    """Plain diffusers' networks and Euler steps from the same noise: one grey level at most, from rounding."""
    pipeline = shipped_pipeline()
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1 - step / 10 for step in range(10)])
    prompts = PROMPTS[:4]
    drawn = torch.randn(4, 11, 4, 8, 8, generator=torch.Generator().manual_seed(0))[:, 0]
    with torch.no_grad():
        text, empty = pipeline.encode_prompt(prompts, CPU, 1, do_classifier_free_guidance=True)
        for timestep in scheduler.timesteps:
            free, guided = (pipeline.unet(drawn, timestep, states).sample for states in (empty, text))
            drawn = scheduler.step(free + 3 * (guided - free), timestep, drawn).prev_sample
        pixels = pipeline.vae.decode(drawn / pipeline.vae.config.scaling_factor).sample
    expected = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round()
    assert (images(flow, prompts, "ode").float() - expected).abs().max() <= 1


def test_the_flow_samples_in_plain_diffusers() -> None:
    pipeline = shipped_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    array = pipeline(PROMPTS[:8], num_inference_steps=10, guidance_scale=3.0, generator=generator, output_type="np")
    pictures = torch.from_numpy(array.images * 255).round().to(torch.uint8).permute(0, 3, 1, 2)
    assert gold.attribute_accuracy(pictures, PROMPTS[:8]).mean() > 0.45


def shipped_pipeline() -> StableDiffusionPipeline:
    vae = AutoencoderKL.from_pretrained(weights.PIPELINE / "vae")
    return StableDiffusionPipeline.from_pretrained(weights.FLOW, vae=vae, safety_checker=None, local_files_only=True)


def test_training_makes_the_difference_and_leaves_room(flow: ShapesFlow) -> None:
    """Random networks in the same places draw what is right by chance."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = ShapesFlow.untrained(Settings(), CPU)
    prompts = PROMPTS[::2]
    trained, by_chance = (
        gold.attribute_accuracy(images(model, prompts, "flow-sde"), prompts).mean() for model in (flow, untrained)
    )
    assert 0.5 < trained < 0.75
    assert by_chance < 0.25


def test_the_pool_that_the_flow_trains_on_has_no_unseen_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "POOL", 500)
    latents.cache_latents(weights.PIPELINE / "vae", tmp_path / "pool")
    pool = load_file(tmp_path / "pool")
    assert len(pool["indices"]) == 500
    assert not any(is_unseen(index) for index in pool["indices"].tolist())
    assert not {index_of(parse(prompt)) for prompt in list(split("unseen"))[:200]} & set(pool["indices"].tolist())


@pytest.mark.parametrize("objective", [EPSILON, FLOW], ids=["epsilon", "flow"])
def test_a_checkpoint_says_what_it_was_trained_on(
    objective: Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps of the recipe, from the shipped parts; what is read back draws by its own process."""
    for name, value in {"STEPS": 2, "SAVE_EVERY": 2, "BATCH": 8}.items():
        monkeypatch.setattr(unet, name, value)
    monkeypatch.setattr(latents, "POOL", 16)
    latents.cache_latents(weights.PIPELINE / "vae", tmp_path / "pool")
    unet.train_unet(objective, weights.PIPELINE / "vae", weights.REWARD, tmp_path / "pool", tmp_path / "unet")
    base = Base.load(tmp_path / "unet" / "step-2")
    assert base.objective is objective
    assert base.sample(PROMPTS[:2], torch.Generator().manual_seed(0)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("suite", "first"), [("small-shapes-flow", "small-shapes"), ("large-shapes-flow", "large-shapes")]
)
def test_a_flow_suite_is_the_first_but_for_model_and_sampler(suite: str, first: str) -> None:
    """And each algorithm has the same settings in both, whether the first lists it or leaves it to its defaults."""
    flow, diffusion = load_suite(suite), load_suite(first)
    apart = {"name", "description", "model", "sampler", "algorithms"}
    assert flow.model_dump(exclude=apart) == diffusion.model_dump(exclude=apart)
    assert (flow.model.name, flow.sampler.kind, flow.sampler.noise_level) == ("shapes-flow", "flow-sde", None)
    assert flow.sampler.model_dump(exclude={"kind"}) == diffusion.sampler.model_dump(exclude={"kind"})
    assert {"prdp", "ddpo", "grpo", "nft", "awm", "crd"} <= flow.algorithms.keys()
    for label in flow.algorithms:
        outlines = [make_outline(s, label, seed=0) for s in (flow, diffusion)]
        assert outlines[0].settings == outlines[1].settings
        assert outlines[0].objective_steps == outlines[1].objective_steps == 8
        assert outlines[0].epoch_cost() == outlines[1].epoch_cost()


@pytest.mark.parametrize("kind", ["ddpm", "flow-sde"])
def test_the_diffusion_seen_as_a_flow_draws_the_same_images(kind: str) -> None:
    first, second = (
        images(ShapesModel(ShapesConfig(process=way), CPU), PROMPTS[:8], kind).int() for way in (None, "converted")
    )
    assert (first - second).abs().max() <= 1


@pytest.mark.slow
def test_flow_sde_at_sqrt_2_on_the_converted_model_is_ddpm_to_the_discretisation_error() -> None:
    """Root mean square differences in grey levels, from the same noise; DDIM ends where the converted chain ends."""
    diffusion, converted = (ShapesModel(ShapesConfig(process=way), CPU) for way in (None, "converted"))
    errors = []
    for steps in (10, 50, 250):
        first = images(diffusion, PROMPTS[:8], "ddim", steps).float()
        second = images(converted, PROMPTS[:8], "flow-sde", steps, noise_level=math.sqrt(2)).float()
        errors.append(float((first - second).square().mean().sqrt()))
    assert errors[2] < 2.5
    assert 1.5 * errors[2] < errors[1] < errors[0] / 3


@pytest.mark.slow
def test_prdp_learns_the_same_on_the_diffusion_seen_as_a_flow() -> None:
    """The reward of every image of three epochs; a logit is a unit."""
    found = []
    for way in ([], ["model.process=converted"]):
        overrides = ["budget.reward_queries_per_epoch=16", "sampler.num_steps=5", *way]
        run = make_run(make_plan(load_suite("tiny-shapes", overrides), "prdp", 0), Processes(Compute(device="cpu")))
        rewards = []
        for epoch in range(3):
            rollout = run.rollout(epoch)
            rewards.append(rollout.rewards)
            run.update(rollout)
        found.append(torch.stack(rewards))
        assert isinstance(run.policy.process, AsFlow) == bool(way)
    assert (found[0] - found[1]).abs().max() < 0.02
