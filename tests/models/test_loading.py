"""What loads is what the files say: pipelines that are not whole, or of another kind, are refused before weights load.

Each case spoils one thing in a copy of a tiny pipeline; the check that `rfbench doctor` and a plan make must find it,
with a message that names the file, and so must loading itself.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from rfbench.cli import exit_code
from rfbench.errors import InputError
from rfbench.hub import weights
from rfbench.models import pipeline_folder, prompt_tokens
from rfbench.models.pipeline_folder import ENCODER, MODEL
from rfbench.models.stable_diffusion import StableDiffusion, StableDiffusionConfig
from rfbench.suite.suite import Suite
from tests import tiny
from tests.models.spoils import REFUSED, SCHEDULER, Spoil, edit, sharded, tensors

CPU = torch.device("cpu")


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
    assert model.process.steps_offset == 1
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
    read = prompt_tokens.ClipTokens(pipeline_folder.read(folders["sd1"]), "text_encoder")
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
