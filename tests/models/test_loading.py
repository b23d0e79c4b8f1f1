"""What loads is what the files say: pipelines that are not whole, or of another kind, are refused before weights load.

Each case spoils one thing in a copy of a tiny pipeline; the check that `rfbench doctor` and a plan make must find it,
with a message that names the file, and so must loading itself.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from rfbench.cli import exit_code
from rfbench.errors import InputError
from rfbench.hub import weights
from rfbench.models import pipeline_folder, text_encoding
from rfbench.models.pipeline_folder import ENCODER, MODEL
from rfbench.models.stable_diffusion import StableDiffusion, StableDiffusionConfig
from rfbench.suite.suite import Suite
from tests import tiny

CPU = torch.device("cpu")
SCHEDULER = "scheduler/scheduler_config.json"
Spoil = Callable[[Path], object]


def edit(file: str, *drop: str, **changes: Any) -> Spoil:
    def change(folder: Path) -> None:
        known = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({k: v for k, v in known.items() if k not in drop} | changes))

    return change


def tensors(file: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Spoil:
    return lambda folder: save_file(change(load_file(folder / file)), folder / file, metadata={"format": "pt"})


def without(part: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {key: value for key, value in state.items() if part not in key}


def remove(*names: str) -> Spoil:
    def unlink(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return unlink


def legacy_tokenizer(*, vocabulary: bool = True, merges: bool = True) -> Spoil:
    """The files of an older tokenizer, of which some may be missing."""

    def write(folder: Path) -> None:
        whole = json.loads((folder / "tokenizer/tokenizer.json").read_text())["model"]["vocab"]
        (folder / "tokenizer/tokenizer.json").unlink()
        if vocabulary:
            (folder / "tokenizer/vocab.json").write_text(json.dumps(whole))
        if merges:
            (folder / "tokenizer/merges.txt").write_text("#version: 0.2\n")

    return write


def unreachable_token(folder: Path) -> None:
    """A vocabulary of words whose merges were cut off."""
    file = folder / "tokenizer/tokenizer.json"
    data = json.loads(file.read_text())
    index = data["model"]["vocab"].pop("~</w>")
    data["model"]["vocab"]["the</w>"] = index
    file.write_text(json.dumps(data))


def every_prompt_alike(folder: Path) -> None:
    """A tokenizer of the right size that knows no letter."""
    file = folder / "tokenizer/tokenizer.json"
    data = json.loads(file.read_text())
    vocabulary = data["model"]["vocab"]
    data["model"]["vocab"] = {
        token if token.startswith("<|") else chr(0x4E00 + index): index for token, index in vocabulary.items()
    }
    file.write_text(json.dumps(data))


def tiny_vae(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    AutoencoderTiny(
        encoder_block_out_channels=(4,),
        decoder_block_out_channels=(4,),
        num_encoder_blocks=(1,),
        num_decoder_blocks=(1,),
    ).save_pretrained(folder / "vae")


def sharded(folder: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", max_shard_size="30KB")


def lost_shard(folder: Path) -> None:
    sharded(folder)
    sorted((folder / "unet").glob("*-of-*"))[1].unlink()


def cut_off(folder: Path) -> None:
    file = folder / "unet" / MODEL
    file.write_bytes(file.read_bytes()[:-100])


REFUSED: dict[str, tuple[str, Spoil, str]] = {
    # tensors that are missing, unknown or of another shape
    "encoder under a prefix": (
        "sd1",
        tensors(f"text_encoder/{ENCODER}", lambda s: {f"cond_stage_model.{k}": v for k, v in s.items()}),
        r"text_encoder/model.safetensors does not hold the weights of a CLIPTextModel: .* is missing; .* is unknown",
    ),
    "encoder without a layer": (
        "sd1",
        tensors(f"text_encoder/{ENCODER}", without("layers.0")),
        r"a CLIPTextModel: 16 tensors differ. encoder.layers.0.\S+ \(16, 16\) is missing",
    ),
    "encoder of another depth": (
        "sd1",
        edit("text_encoder/config.json", num_hidden_layers=2),
        r"a CLIPTextModel: 16 tensors differ. encoder.layers.1.\S+ .* is missing",
    ),
    "second encoder without its projection": (
        "xl",
        tensors(f"text_encoder_2/{ENCODER}", without("text_projection")),
        r"a CLIPTextModelWithProjection: 1 tensors differ. text_projection.weight \(12, 8\) is missing",
    ),
    "UNet without its middle": ("sd1", tensors(f"unet/{MODEL}", without("mid_block")), r"mid_block\.\S+ .* is missing"),
    "UNet with more": (
        "sd1",
        tensors(f"unet/{MODEL}", lambda s: s | {"adapter.weight": torch.zeros(2)}),
        r"1 tensors differ. adapter.weight \(2,\) is unknown",
    ),
    "UNet of another width": (
        "sd1",
        tensors(f"unet/{MODEL}", lambda s: s | {"conv_in.bias": torch.zeros(5)}),
        r"conv_in.bias is \(5,\), where \(4,\) is needed",
    ),
    "decoder without its middle": (
        "sd1",
        tensors(f"vae/{MODEL}", without("decoder.mid_block")),
        r"vae/config.json: .*decoder.mid_block\S+ .* is missing",
    ),
    "file cut off": (
        "sd1",
        cut_off,
        "unet/diffusion_pytorch_model.safetensors is not a safetensors file, or is cut off",
    ),
    "lost shard": ("sd1", lost_shard, r"index.json lists \d+ shards, but \S+-00002-of-\S+ is missing"),
    # tokenizers
    "no vocabulary": (
        "sd1",
        legacy_tokenizer(vocabulary=False),
        "not whole: there is no vocab.json, and no tokenizer.json",
    ),
    "no merges": ("sd1", legacy_tokenizer(merges=False), "not whole: there is no merges.txt"),
    "nothing": (
        "sd1",
        lambda f: shutil.rmtree(f / "tokenizer"),
        "tokenizer is not whole: there is no vocab.json and no",
    ),
    "second tokenizer": ("xl", remove("tokenizer_2/tokenizer.json"), "tokenizer_2 is not whole"),
    "merges cut off": ("sd1", unreachable_token, "no merge leads to 1 of its 190 tokens, such as 'the</w>'"),
    "knows no letter": ("sd1", every_prompt_alike, "gives 'a red cat' and 'a big dog' the same tokens"),
    "no length": (
        "sd1",
        edit("tokenizer/tokenizer_config.json", "model_max_length"),
        "is not given, but its encoder takes 12",
    ),
    "other length": (
        "sd1",
        edit("tokenizer/tokenizer_config.json", model_max_length=512),
        "is 512, but its encoder takes 12 tokens; write",
    ),
    "tokens added to one": (
        "sd1",
        edit(
            "tokenizer/tokenizer_config.json",
            added_tokens_decoder={"190": {"content": "<my-cat>", "special": False}},
        ),
        "has 191 tokens, but its encoder has embeddings of 190",
    ),
    # what the UNet asks for
    "latent consistency": (
        "sd1",
        edit("unet/config.json", time_cond_proj_dim=32),
        "an embedding of the guidance scale",
    ),
    "classes": ("sd1", edit("unet/config.json", num_class_embeds=10), "class labels .num_class_embeds is 10"),
    "projected classes": (
        "sd1",
        edit("unet/config.json", class_embed_type="projection"),
        "class_embed_type is 'projection'",
    ),
    "images beside text": (
        "sd1",
        edit("unet/config.json", encoder_hid_dim_type="ip_image_proj"),
        "encoder_hid_dim_type",
    ),
    "boxes": ("sd1", edit("unet/config.json", attention_type="gated"), "attention_type is 'gated'"),
    "added text": (
        "sd1",
        edit("unet/config.json", addition_embed_type="text"),
        "addition_embed_type of the UNet is 'text'",
    ),
    "other text width": (
        "sd1",
        edit("unet/config.json", cross_attention_dim=32),
        "width 32, but the text encoders give 16",
    ),
    "refiner": ("xl", edit("unet/config.json", addition_time_embed_dim=8), "a refiner, or of other parts"),
    # the other parts' classes
    "tiny VAE": ("sd1", tiny_vae, "the VAE is a AutoencoderTiny"),
    "asymmetric VAE": (
        "sd1",
        edit("vae/config.json", _class_name="AsymmetricAutoencoderKL"),
        "AsymmetricAutoencoderKL",
    ),
    "shifting VAE": ("sd1", edit("vae/config.json", shift_factor=0.1), "shifts or scales its latents .shift_factor"),
    "other encoder": (
        "sd1",
        edit("text_encoder/config.json", model_type="t5"),
        "the text_encoder is a t5; rfbench reads CLIP",
    ),
    "part of another class": (
        "sd1",
        edit("model_index.json", text_encoder=["transformers", "XLMRobertaModel"]),
        "the text_encoder is a XLMRoberta",
    ),
    # schedulers
    "flow": (
        "sd1",
        lambda f: FlowMatchEulerDiscreteScheduler().save_pretrained(f / "scheduler"),
        "FlowMatchEulerDiscrete",
    ),
    "EDM": (
        "sd1",
        edit(SCHEDULER, _class_name="EDMEulerScheduler"),
        "is a EDMEulerScheduler, which does not say the betas",
    ),
    "distilled": ("sd1", edit(SCHEDULER, _class_name="LCMScheduler"), "is a LCMScheduler"),
    "flow in another class": ("sd1", edit(SCHEDULER, use_flow_sigmas=True), "asks for use_flow_sigmas"),
    "empty": ("sd1", lambda f: (f / SCHEDULER).write_text("{}"), "the scheduler is of no class"),
    "no betas": ("sd1", edit(SCHEDULER, "beta_start", "beta_end"), "has no beta_start and no beta_end"),
    "other betas": (
        "sd1",
        edit(SCHEDULER, beta_schedule="sigmoid"),
        "beta_schedule is 'sigmoid'; rfbench knows linear",
    ),
    "other spacing": ("sd1", edit(SCHEDULER, timestep_spacing="karras"), "timestep_spacing is 'karras'"),
    "other variance": ("sd1", edit(SCHEDULER, variance_type="fixed_large"), "variance_type is 'fixed_large'"),
    "thresholding": ("sd1", edit(SCHEDULER, thresholding=True), "asks for thresholding"),
    "zero terminal SNR": ("sd2", edit(SCHEDULER, rescale_betas_zero_snr=True), "asks for rescale_betas_zero_snr"),
    "clipping in XL": ("xl", edit(SCHEDULER, clip_sample=True), "asks for clip_sample"),
    "clipping in XL, unsaid": ("xl", edit(SCHEDULER, "clip_sample"), "asks for clip_sample"),
}


@pytest.fixture
def spoilt(folders: dict[str, Path], tmp_path: Path) -> Callable[[str, Spoil], Path]:
    def copy(family: str, spoil: Spoil) -> Path:
        shutil.copytree(folders[family], tmp_path / "pipeline")
        spoil(tmp_path / "pipeline")
        return tmp_path / "pipeline"

    return copy


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_the_check_and_by_loading(spoilt: Callable[[str, Spoil], Path], case: str) -> None:
    family, spoil, message = REFUSED[case]
    config = StableDiffusionConfig(path=str(spoilt(family, spoil)))
    with pytest.raises(InputError, match=message):
        StableDiffusion.check(config)
    with pytest.raises(InputError, match=message):
        StableDiffusion(config, CPU)


@pytest.mark.parametrize("case", ["encoder without a layer", "no merges", "flow", "latent consistency"])
def test_doctor_and_run_say_it_before_anything_loads(
    spoilt: Callable[[str, Spoil], Path], suite_file: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    family, spoil, message = REFUSED[case]
    setting = f"model.path={spoilt(family, spoil)}"
    assert exit_code(["doctor", str(suite_file), "--set", setting]) == 1
    assert exit_code(["run", "prdp", "--suite", str(suite_file), "--dry-run", "--set", setting]) == 2
    captured = capsys.readouterr()
    assert "cannot run on this machine yet" in captured.out
    with pytest.raises(InputError, match=message):
        raise InputError(" ".join(captured.err.split()))


def test_a_loaded_network_is_its_file(folders: dict[str, Path]) -> None:
    """Every tensor bit by bit, against the libraries' own loaders."""
    folder = folders["xl"]
    model = StableDiffusion(StableDiffusionConfig(path=str(folder)), CPU)
    theirs = [
        UNet2DConditionModel.from_pretrained(folder / "unet"),
        CLIPTextModel.from_pretrained(folder / "text_encoder"),
    ]
    for ours, reference in zip([model.denoiser, model.text.encoders[0]], theirs, strict=True):
        assert not ours.training
        expected = reference.state_dict()
        assert list(ours.state_dict()) == list(expected)
        assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())


def test_older_spellings_are_the_same_networks(spoilt: Callable[[str, Spoil], Path], folders: dict[str, Path]) -> None:
    """The VAE's attention before diffusers 0.12, a text encoder under text_model, and its constant position_ids."""
    spelled = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}

    def old_vae(state: dict[str, Tensor]) -> dict[str, Tensor]:
        for new, old in spelled.items():
            state = {key.replace(new, old) if "attentions" in key else key: value for key, value in state.items()}
        return state

    def old_text(state: dict[str, Tensor]) -> dict[str, Tensor]:
        named = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in state.items()}
        return named | {"text_model.embeddings.position_ids": torch.arange(12)[None]}

    def both(folder: Path) -> None:
        tensors(f"vae/{MODEL}", old_vae)(folder)
        tensors(f"text_encoder/{ENCODER}", old_text)(folder)

    old = StableDiffusion(StableDiffusionConfig(path=str(spoilt("sd1", both))), CPU)
    new = StableDiffusion(StableDiffusionConfig(path=str(folders["sd1"])), CPU)
    assert torch.equal(old.encode("a cat")["text"], new.encode("a cat")["text"])
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(old.decode(latents), new.decode(latents))


def test_shards_are_the_whole_file(spoilt: Callable[[str, Spoil], Path], folders: dict[str, Path]) -> None:
    whole = StableDiffusion(StableDiffusionConfig(path=str(folders["sd1"])), CPU)
    pieces = StableDiffusion(StableDiffusionConfig(path=str(spoilt("sd1", sharded))), CPU)
    expected = whole.denoiser.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in pieces.denoiser.state_dict().items())


def test_a_name_in_two_spellings_is_one_too_many(tmp_path: Path) -> None:
    save_file({"a.weight": torch.zeros(1, 1), "x.a.weight": torch.ones(1, 1)}, tmp_path / "w.safetensors")
    files = weights.TensorFiles(tmp_path, "w.safetensors")
    build = lambda: torch.nn.ModuleDict({"a": torch.nn.Linear(1, 1, bias=False)})  # noqa: E731
    with pytest.raises(InputError, match=r"1 tensors differ. x.a.weight \(1, 1\) is unknown"):
        weights.check(build, files, "a layer", ((r"^x\.", ""),))


def test_what_diffusers_corrects_is_corrected_and_said(spoilt: Callable[[str, Spoil], Path]) -> None:
    def old(folder: Path) -> None:
        edit(SCHEDULER, "clip_sample", steps_offset=0)(folder)
        edit("unet/config.json", _diffusers_version="0.6.0", sample_size=32)(folder)

    config = StableDiffusionConfig(path=str(spoilt("sd1", old)))
    model = StableDiffusion(config, CPU)
    assert model.latent_shape == (4, 64, 64)
    assert model.noise_schedule.steps_offset == 1
    said = " ".join(StableDiffusion.remarks(config))
    assert "sample_size of the UNet is 32 in a file of diffusers 0.6.0; taken as 64" in said
    assert "steps_offset of the scheduler is 0; taken as 1" in said
    assert "clip_sample of the scheduler is on; taken as off" in said


def test_an_empty_prompt_that_is_drawn_is_not_the_unconditional_one(folders: dict[str, Path]) -> None:
    """In XL the latter is zeros; diffusers encodes the former."""
    model = StableDiffusion(StableDiffusionConfig(path=str(folders["xl"])), CPU)
    assert all(bool(value.any()) for value in model.encode("").values())
    assert not any(bool(value.any()) for value in model.unconditional().values())


def test_a_vae_of_the_library_is_read(folders: dict[str, Path]) -> None:
    model = StableDiffusion(StableDiffusionConfig(path=str(folders["sd1"])), CPU)
    theirs = AutoencoderKL.from_pretrained(folders["sd1"] / "vae")
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        picture = theirs.decode(latents / theirs.config.scaling_factor).sample
    assert torch.equal(model.decode(latents), ((picture / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["sampler.num_steps=1000"], "num_steps is 1000, but with steps_offset 1 its first step is timestep 1000"),
        (["sampler.eta=0.5"], "eta is 0.5, but ddpm is ancestral"),
        (["sampler.skip_last_steps=9"], "no denoising step is left"),
        (
            ["finetune.method=lora", 'finetune.target_modules=["to_q","to_kk"]'],
            r"names 'to_kk', which no module of UNet2DConditionModel is called \(did you mean 'to_k'",
        ),
        (
            ["finetune.method=lora", 'finetune.target_modules=["attn1"]'],
            r"'attn1', which is a Attention; .* 'attn1.to_k'",
        ),
        (
            ["finetune.method=lora", 'finetune.target_modules=["norm1"]'],
            "'norm1', which is a (Group|Layer)Norm; a LoRA",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_found_by_doctor_and_before_loading(
    suite_file: Path, capsys: pytest.CaptureFixture[str], settings: list[str], message: str
) -> None:
    options = [part for setting in settings for part in ("--set", setting)]
    assert exit_code(["doctor", str(suite_file), *options]) in (1, 2)  # 2: the settings alone say it
    diagnosis = capsys.readouterr()
    assert exit_code(["run", "prdp", "--suite", str(suite_file), "--out", "/nowhere", *options]) == 2
    for printed in (diagnosis.out + diagnosis.err, capsys.readouterr().err):
        assert re.search(message, " ".join(printed.split()))


def test_unseen_is_what_the_tokenizer_tells_apart(tmp_path: Path, pipeline: Path, prompt_file: Path) -> None:
    """Two prompts that differ only behind the encoder's twelve tokens are one prompt to the model."""
    (tmp_path / "new.txt").write_text("a pelican\na cat with the hat\n")
    (tmp_path / "old.txt").write_text("a cat with the tie\n" + "\n".join(tiny.PROMPTS))
    base = tiny.make_suite(pipeline, prompt_file).model_dump()
    sets = {"new": {"prompts": "new", "seen": False, "num_prompts": 2, "images_per_prompt": 2}}
    prompts = {
        name: {"name": "file", "path": str(tmp_path / f"{file}.txt")}
        for name, file in (("train", "old"), ("new", "new"))
    }
    suite = Suite.model_validate(base | {"prompts": prompts, "evaluation": {"sets": sets}})
    with pytest.raises(InputError, match="but 1 of its 2 prompts are training prompts, or the model reads"):
        tiny.plan(suite)
    sets["new"] |= {"exclude": ["train"]}
    suite = Suite.model_validate(base | {"prompts": prompts, "evaluation": {"sets": sets}})
    assert tiny.plan(suite).evaluation_prompts == {"new": ["a pelican"]}


def test_what_is_read_is_what_is_encoded(folders: dict[str, Path]) -> None:
    """Word by word as all at once: the encoder's tokens, without the signs of beginning, end and filling."""
    read = text_encoding.ClipTokens(pipeline_folder.read(folders["sd1"]), "text_encoder")
    prompts = [
        "a cat",
        "a  CAT",
        "it's 2 o'clock,\tisn't it?",
        "caf\u00e9 cafe\u0301 \u7dda\u753b",
        "x",
        "a cat with the hat on",
    ]
    filling = CLIPTokenizer.from_pretrained(folders["sd1"] / "tokenizer").pad_token_id
    for tokens, row in zip(read.reading(prompts), read(prompts), strict=True):
        inside = row[1:-1]
        assert list(tokens) == inside[: len(tokens)]
        assert set(inside[len(tokens) :]) <= {filling}
