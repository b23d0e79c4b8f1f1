"""Stable Diffusion 3: images, step spacing and stochastic steps against diffusers and Flow-GRPO; bad folders."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from huggingface_hub.utils import filter_repo_objects

from rfbench.cli import exit_code
from rfbench.core import keyed_random
from rfbench.core.policy import Policy, make_policy
from rfbench.core.rollout import denoise
from rfbench.errors import InputError
from rfbench.inference import generate
from rfbench.models import flow_schedule
from rfbench.models.stable_diffusion_3 import StableDiffusion3, StableDiffusion3Config
from rfbench.planning.plan import make_outline
from rfbench.running import weights
from rfbench.suite.loading import load_suite
from rfbench.suite.suite import Sampler
from tests import tiny
from tests.models.pipelines import make_sd3
from tests.models.test_lora import adapters
from tests.runs import assert_same_run, exit_code_of_killed, lines, run
from tests.test_samplers import dance_flux_step, flow_grpo_cps, flow_grpo_sde

CPU = torch.device("cpu")
PROMPTS = ["a cat", "an ant and more than twelve signs"]
STEPS = 4
DYNAMIC = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64, "max_shift": 1.5}


@pytest.fixture(scope="module")
def folder(folders: dict[str, Path]) -> Path:
    return folders["sd3"]


def config(folder: Path, **settings: Any) -> StableDiffusion3Config:
    return StableDiffusion3Config(path=str(folder), **{"max_sequence_length": 16} | settings)


def make(folder: Path, sampler: Sampler, finetune: dict[str, Any] | None = None, **settings: Any) -> Policy:
    """The untrained policy on the sampler's chain, a LoRA by default."""
    table = {"name": "stable-diffusion-3", "path": str(folder)}
    finetune = finetune or {"method": "lora"}
    suite = tiny.make_suite(folder, folder, model=table, finetune=finetune, sampler={"kind": "flow-sde"})
    return make_policy(suite, StableDiffusion3(config(folder, **settings), CPU), CPU).drawing_with(sampler)


def in_diffusers(folder: Path, *, t5: bool = True) -> StableDiffusion3Pipeline:
    without: dict[str, Any] = {} if t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, **without)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(
    ("guidance", "t5", "scheduler", "resolution"),
    [
        (1.0, True, {}, None),
        (4.5, True, {}, None),
        (4.5, False, {}, None),
        pytest.param(3.0, True, DYNAMIC, 24, marks=pytest.mark.slow),
    ],
)
def test_images_are_those_of_diffusers(
    folder: Path, tmp_path: Path, guidance: float, t5: bool, scheduler: dict[str, Any], resolution: int | None
) -> None:
    """Its own pipeline, in whose scheduler nothing is changed, with the same noise: one grey level at most."""
    if scheduler:
        folder = make_sd3(tmp_path, **scheduler)
    policy = make(folder, Sampler(kind="ode", num_steps=STEPS, guidance_scale=guidance), t5=t5, resolution=resolution)
    [ours] = generate.sample(policy, PROMPTS, images=1, seed=5, chunk_size=8)
    pipe, shape = in_diffusers(folder, t5=t5), policy.model.latent_shape
    for number, prompt in enumerate(PROMPTS):
        latents = keyed_random.normal([(5, "sample", number, 0)], (STEPS + 1, *shape))[:, 0]
        options = {"height": resolution, "width": resolution, "max_sequence_length": 16, "output_type": "pt"}
        [theirs] = pipe(prompt, num_inference_steps=STEPS, guidance_scale=guidance, latents=latents, **options).images
        assert (ours[number].int() - (theirs * 255).round().int()).abs().max() <= 1
    assert ours.float().std() > 10


@pytest.mark.parametrize("num_steps", [1, 4, 10, 40])
@pytest.mark.parametrize("settings", [{}, {"shift": 3.0}, {"shift": 1.7, "num_train_timesteps": 100}, DYNAMIC])
def test_steps_are_spaced_as_diffusers_spaces_them(settings: dict[str, Any], num_steps: int) -> None:
    """From the scheduler's own file; the flow that its pipelines use unless they pass noise levels of their own."""
    scheduler = FlowMatchEulerDiscreteScheduler(**settings)
    process = flow_schedule.read(dict(scheduler.config), num_tokens=36)
    tokens = {key: value for key, value in DYNAMIC.items() if settings.get("use_dynamic_shifting")}
    mu = {"mu": 0.5 + (36 - 4) / (64 - 4) * (1.5 - 0.5)} if tokens else {}
    scheduler.set_timesteps(num_steps, **mu)
    chain = process.chain(Sampler(kind="ode", num_steps=num_steps))
    steps = flow_schedule.training_steps(dict(scheduler.config))
    torch.testing.assert_close(steps * chain.timesteps.float(), scheduler.timesteps, rtol=0, atol=1e-3)
    torch.testing.assert_close(chain.output_weight.float(), scheduler.sigmas.diff(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "official", "noise_level"),
    [
        ("flow-sde", flow_grpo_sde, 0.7),
        pytest.param("cps", flow_grpo_cps, 0.8, marks=pytest.mark.slow),
        pytest.param("dance-sde", dance_flux_step, 0.3, marks=pytest.mark.slow),
    ],
)
def test_stochastic_steps_are_the_official_codes(folder: Path, kind: str, official: Any, noise_level: float) -> None:
    """diffusers' network, embeddings and noise levels, and the steps of Flow-GRPO's pipeline or DanceGRPO's."""
    sampler = Sampler(kind=kind, num_steps=5, guidance_scale=4.5)
    policy, pipe = make(folder, sampler), in_diffusers(folder)
    drawn = keyed_random.normal([(0, "test", number) for number in range(2)], (6, *policy.model.latent_shape))
    pipe.scheduler.set_timesteps(5)
    sigmas = pipe.scheduler.sigmas
    embeds = pipe.encode_prompt(PROMPTS, PROMPTS, PROMPTS, max_sequence_length=16, do_classifier_free_guidance=True)
    text, pooled = torch.cat([embeds[1], embeds[0]]), torch.cat([embeds[3], embeds[2]])
    condition = policy.encode_prompts(PROMPTS)
    with torch.no_grad():
        for steps, before, _, after in denoise(policy, condition, drawn):
            step = int(steps[0])
            timesteps = pipe.scheduler.timesteps[step].expand(4)
            unconditional, conditional = pipe.transformer(
                torch.cat([before] * 2), text, pooled, timesteps, return_dict=False
            )[0].chunk(2)
            velocity = unconditional + 4.5 * (conditional - unconditional)
            mean, std = official(before, velocity, sigmas, step, noise_level)
            torch.testing.assert_close(after, mean + std * drawn[:, step + 1], rtol=0, atol=2e-5)
            if std == 0:  # the last step of cps
                continue
            log_prob = -((after - mean) ** 2) / (2 * std**2) - std.log() - math.log(math.sqrt(2 * math.pi))
            ours = policy.log_probs(before, after, steps, condition)
            torch.testing.assert_close(ours, log_prob.mean(dim=(1, 2, 3)), rtol=0, atol=2e-5)


PUBLISHED = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "tokenizer_2/merges.txt",
    "tokenizer_2/special_tokens_map.json",
    "tokenizer_2/tokenizer_config.json",
    "tokenizer_2/vocab.json",
]
OF_T5 = [
    "text_encoder_3/config.json",
    "text_encoder_3/model-00001-of-00002.safetensors",
    "text_encoder_3/model-00002-of-00002.safetensors",
    "text_encoder_3/model.safetensors.index.json",
    "tokenizer_3/special_tokens_map.json",
    "tokenizer_3/spiece.model",
    "tokenizer_3/tokenizer.json",
    "tokenizer_3/tokenizer_config.json",
]
BESIDE = [
    "LICENSE.md",
    "README.md",
    "sd3.5_medium.safetensors",
    "text_encoders/clip_l.safetensors",
    "text_encoders/t5xxl_fp16.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder_3/model.fp16-00001-of-00002.safetensors",
    "text_encoder_3/model.safetensors.index.fp16.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
]


@pytest.mark.parametrize("t5", [True, False])
def test_what_is_fetched_of_the_published_repository(t5: bool) -> None:
    from fnmatch import fnmatch

    listing = PUBLISHED + OF_T5 + BESIDE
    [source] = StableDiffusion3.sources(StableDiffusion3Config(t5=t5))
    assert (source.path, len(source.revision)) == ("stabilityai/stable-diffusion-3.5-medium", 40)
    is_there = lambda pattern: any(fnmatch(name, pattern) for name in listing)  # noqa: E731
    assert source.lacking(is_there) == []
    fetched = filter_repo_objects(listing, allow_patterns=source.patterns(is_there))
    assert sorted(fetched) == sorted(PUBLISHED + (OF_T5 if t5 else []))


def edit(file: str, **changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


TRANSFORMER, SCHEDULER = "transformer/config.json", "scheduler/scheduler_config.json"
WITHOUT_T5 = "to leave T5 out.*--set model.t5=false"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "FLUX": (
        edit("model_index.json", _class_name="FluxPipeline"),
        r"holds a FluxPipeline; rfbench trains StableDiffusionPipeline .* StableDiffusion3Pipeline \(Stable D",
    ),
    "1.x": (
        edit("model_index.json", _class_name="StableDiffusionPipeline"),
        r"holds a StableDiffusionPipeline .* use --set model\.name=stable-diffusion$",
    ),
    "no T5": (lambda f: shutil.rmtree(f / "text_encoder_3"), f"has no text_encoder_3/config.json; {WITHOUT_T5}"),
    "no weights of T5": (
        lambda f: [file.unlink() for file in (f / "text_encoder_3").glob("*.safetensors*")],
        f"there is no text_encoder_3/model.safetensors.*{WITHOUT_T5}",
    ),
    "half of T5": (
        lambda f: sorted((f / "text_encoder_3").glob("*.safetensors"))[0].unlink(),
        r"model-00001-of-0000\d.safetensors",
    ),
    "another T5": (
        edit("text_encoder_3/config.json", model_type="umt5"),
        f"is a umt5; rfbench reads a T5; {WITHOUT_T5}",
    ),
    "no tokenizer of T5": (lambda f: (f / "tokenizer_3/tokenizer.json").unlink(), "tokenizer_3 "),
    "no second encoder": (lambda f: shutil.rmtree(f / "text_encoder_2"), "it has no text_encoder_2/config.json"),
    "CLIP without projection": (
        edit("model_index.json", text_encoder=["transformers", "CLIPTextModel"]),
        "the text_encoder is a CLIPTextModel; rfbench reads a CLIPTextModelWithProjection",
    ),
    "inpainting": (edit(TRANSFORMER, in_channels=9), "takes 9 channels and gives 4, but a latent has 4"),
    "other transformer": (
        edit(TRANSFORMER, _class_name="FluxTransformer2DModel"),
        "the transformer is a FluxTransformer2DModel; rfbench trains a SD3Transformer2DModel",
    ),
    "narrow T5": (edit(TRANSFORMER, joint_attention_dim=64), r"the T5 gives embeddings of width 32, .* takes 64"),
    "other projections": (edit(TRANSFORMER, pooled_projection_dim=20), "pooled embeddings are 14 .* takes 20"),
    "few positions": (edit(TRANSFORMER, pos_embed_max_size=3), "positions for 3 of a side"),
    "no flow": (edit(SCHEDULER, _class_name="DDIMScheduler"), "the scheduler is a DDIMScheduler, which does not say"),
    "other spacing": (edit(SCHEDULER, use_karras_sigmas=True), "asks for use_karras_sigmas"),
    "ends early": (edit(SCHEDULER, shift_terminal=0.1), "asks for shift_terminal"),
    "no shift": (edit(SCHEDULER, shift="3"), "shift of the scheduler is '3'; it is a number above 0"),
    "VAE of means": (edit("vae/config.json", latents_mean=[0.0]), "shifts or scales its latents .latents_mean"),
    "VAE shifted by text": (edit("vae/config.json", shift_factor="a"), "shift_factor of the VAE is 'a'; it is a num"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_cannot_be_trained_is_refused_with_what_is_possible(
    folder: Path, tmp_path: Path, case: str
) -> None:
    """By the check that doctor and a plan make, before a weight loads."""
    spoil, message = REFUSED[case]
    shutil.copytree(folder, tmp_path / "pipeline")
    spoil(tmp_path / "pipeline")
    with pytest.raises(InputError, match=message):
        StableDiffusion3.check(config(tmp_path / "pipeline"))


def test_without_t5_a_folder_needs_none(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "pipeline")
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(tmp_path / "pipeline" / part)
    StableDiffusion3.check(config(tmp_path / "pipeline", t5=False))
    model = StableDiffusion3(config(tmp_path / "pipeline", t5=False), CPU)
    assert set(model.encode("a cat")) == {"clip", "pooled"}


@pytest.mark.parametrize(("resolution", "message"), [(18, "a patch of 2 latents .* 4 pixels"), (28, "use 24 or less")])
def test_resolution(folder: Path, resolution: int, message: str) -> None:
    with pytest.raises(InputError, match=f"model.resolution is {resolution}, .*{message}"):
        StableDiffusion3.check(config(folder, resolution=resolution))


def test_prompts_are_told_apart_as_far_as_one_encoder_reads(folder: Path) -> None:
    """CLIP's twelve tokens, or as many of T5 as the suite says."""
    prompts = ["a cat with the hat", "a cat with the tie", "a cat with the hat in the tree"]
    for length, different in ((17, 1), (18, 2), (32, 3)):
        reading = StableDiffusion3.reading(config(folder, max_sequence_length=length))
        assert len(set(reading(prompts))) == different
    model = StableDiffusion3(config(folder), CPU)
    assert [model.truncates(prompt) for prompt in ("a cat", prompts[0])] == [False, True]
    longer = StableDiffusion3(config(folder, max_sequence_length=64), CPU)
    assert not longer.truncates(prompts[2])


def test_a_lora_is_put_where_flow_grpo_puts_it(folder: Path) -> None:
    """The joint attention of image and text, not the image's second one; what a suite says goes before."""
    policy = make(folder, Sampler(kind="ode", num_steps=1))
    trained = {name.partition(".lora_")[0] for name in policy.trainable()}
    assert {name.split(".attn.")[1] for name in trained} == {
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    }  # fmt: skip
    assert {name.split(".")[1] for name in trained} == {"0", "1", "2"}


def test_without_t5_its_rows_are_zeros(folder: Path) -> None:
    policy = make(folder, Sampler(kind="ode", num_steps=1), t5=False)
    model = policy.model
    assert isinstance(model, StableDiffusion3)
    text = model._joint_text(policy.encode_prompts(PROMPTS))
    assert text.shape == (2, 12 + 16, 32)
    assert not text[:, 12:].any()
    assert text[:, :12, :28].any()


MODULES = ("attn.to_q", "attn2.to_out.0", "ff.net.2", "add_k_proj", "norm1.linear", "proj_out", "context_embedder")


@pytest.mark.parametrize("modules", [pytest.param(None, marks=pytest.mark.slow), MODULES])
def test_every_layer_of_a_lora_arrives_in_plain_diffusers(
    folder: Path, tmp_path: Path, modules: tuple[str, ...] | None
) -> None:
    """With an alpha that is not the rank; and comes back, exactly."""
    lora = {"method": "lora", "rank": 2, "alpha": 3.0, "target_modules": modules}
    policy = make(folder, Sampler(kind="ode", num_steps=1), finetune=lora)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    policy.model.save_trained(tmp_path, policy.adapter)
    pipe = in_diffusers(folder)
    pipe.load_lora_weights(tmp_path)
    trained, arrived = adapters(policy.denoiser), adapters(pipe.transformer)
    assert list(arrived) == list(trained)
    for name, (down, up, scale) in trained.items():
        assert torch.equal(arrived[name][0], down)
        assert torch.equal(arrived[name][1], up)
        assert arrived[name][2] == scale == 1.5
    again = make(folder, Sampler(kind="ode", num_steps=1), finetune=lora)
    again.model.load_trained(tmp_path, again.adapter)
    assert all(torch.equal(again.trainable()[name], value) for name, value in policy.trainable().items())


def test_kohyas_format_is_refused(folder: Path, tmp_path: Path) -> None:
    policy = make(folder, Sampler(kind="ode", num_steps=1))
    with pytest.raises(InputError, match="StableDiffusion3 has no kohya format; export it without --format"):
        policy.model.save_kohya(tmp_path, str(policy.adapter))


def test_a_flux_folder_is_named_by_doctor_and_run(
    folder: Path, prompt_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path / "flux")
    edit("model_index.json", _class_name="FluxPipeline")(tmp_path / "flux")
    options = [part for setting in small(tmp_path / "flux", prompt_file) for part in ("--set", setting)]
    assert exit_code(["run", "grpo", "--suite", SUITE, "--out", "/nowhere", *options]) == 2
    assert "holds a FluxPipeline; rfbench trains" in " ".join(capsys.readouterr().err.split())


SUITE = "large-pickscore-sd35"


def test_the_suite_has_flow_grpos_settings() -> None:
    """Its code's config/grpo.py, pickscore_sd3 and base.py; the KL in our unit, which counts the length of a step."""
    suite = load_suite(SUITE)
    outline = make_outline(suite, "grpo", seed=0)
    assert (outline.prompts_per_epoch, outline.settings.images_per_prompt) == (48, 24)
    assert outline.suite.finetune.model_dump() == {
        "method": "lora",
        "rank": 32,
        "alpha": 64.0,
        "target_modules": StableDiffusion3.lora_modules,
    }
    evaluation, training = suite.sampler, outline.sampler
    assert (evaluation.num_steps, evaluation.guidance_scale) == (40, 4.5)
    assert (training.kind, training.num_steps, training.noise_level, training.guidance_scale) == (
        "flow-sde",
        10,
        0.7,
        4.5,
    )
    assert outline.objective_steps == 9
    settings, optimizer = outline.algorithm.config, outline.settings.optimizer
    assert (settings.clip_range, settings.advantage_clip, settings.updates_per_epoch) == (1e-4, 5.0, 2)
    assert (optimizer.learning_rate, optimizer.betas, optimizer.weight_decay) == (3e-4, (0.9, 0.999), 1e-4)
    assert optimizer.max_grad_norm == 1.0
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(10)
    assert settings.kl_weight == pytest.approx(0.01 * float(-scheduler.sigmas.diff()[:9].mean()), rel=0.01)
    assert settings.smallest_std == pytest.approx(1e-4 * 26 / 100, rel=0.01)


def small(folder: Path, prompts: Path) -> list[str]:
    """``--set`` options of a run of the suite on a tiny folder, without files from elsewhere."""
    return [
        f"model.path={folder}",
        "model.resolution=16",
        "model.max_sequence_length=16",
        "reward={ name = 'jpeg-incompressibility' }",
        "evaluation.held_out_rewards=[]",
        "budget.reward_queries_per_epoch=8",
        "sampler.num_steps=3",
        "compute={ device = 'cpu', chunk_size = 16 }",
        *(f"prompts.{name}={{ name = 'file', path = '{prompts}' }}" for name in load_suite(SUITE).prompts),
        "evaluation.sets={ seen = { prompts = 'train', seen = true, num_prompts = 2, images_per_prompt = 1 } }",
        *(f"algorithms.{label}.images_per_prompt=4" for label in load_suite(SUITE).algorithms),
        *(f"algorithms.{label}.sampler.num_steps=4" for label in load_suite(SUITE).algorithms),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("label", ["grpo", "grpo-fast", "nft", "prdp"])
def test_every_algorithm_of_the_suite_trains_and_resumes_exactly(
    folder: Path, prompt_file: Path, tmp_path: Path, label: str
) -> None:
    """And begins at a ratio of 1; the second run encodes its prompts into a folder."""
    settings = [*small(folder, prompt_file), "epochs=3"]
    whole = run(load_suite(SUITE, settings), tmp_path / "whole", label)
    stored = load_suite(SUITE, [*settings, f"compute.prompt_folder={tmp_path / 'encoded'}"])
    assert exit_code_of_killed("between the rename and the clean-up", stored, tmp_path / "killed", label) == -9
    resumed = run(stored, tmp_path / "killed", label, resume=True)
    assert_same_run(whole, resumed)
    epochs = lines(whole, "metrics")
    assert all((epoch["start_error"] or 0.0) < 1e-5 for epoch in epochs)
    assert weights.load_policy(whole, CPU)[0].adapter is not None
