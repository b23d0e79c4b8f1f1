"""Ways to spoil one thing in a copy of a tiny pipeline, and what is then said of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from rfbench.models.pipeline_folder import ENCODER, MODEL

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


def twice_in_shards(folder: Path) -> None:
    sharded(folder)
    first, second = sorted((folder / "unet").glob("*-of-*"))[:2]
    copied = dict(list(load_file(first).items())[:1])
    save_file(load_file(second) | copied, second, metadata={"format": "pt"})


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
    "UNet of whole numbers": (
        "sd1",
        tensors(f"unet/{MODEL}", lambda s: s | {"conv_in.weight": (100 * s["conv_in.weight"]).to(torch.int8)}),
        "1 tensors hold whole numbers, such as conv_in.weight; it is quantised",
    ),
    "encoder of whole numbers": (
        "xl",
        tensors(f"text_encoder_2/{ENCODER}", lambda s: {k: v.to(torch.int64) for k, v in s.items()}),
        "text_encoder_2/model.safetensors .* hold whole numbers",
    ),
    "tensor in two shards": ("sd1", twice_in_shards, "is in .*00001-of-.* and in .*00002-of-.*: these are not one net"),
    "file of a page": (
        "sd1",
        lambda f: (f / "vae" / MODEL).write_text("<!DOCTYPE html><html>Not found</html>"),
        "vae/diffusion_pytorch_model.safetensors is not a safetensors file",
    ),
    # configs that describe no network
    "UNet of unknown blocks": (
        "sd1",
        edit("unet/config.json", down_block_types=["NoBlock", "DownBlock2D"]),
        "unet/config.json describes no network: ValueError: NoBlock",
    ),
    "VAE of unknown blocks": (
        "sd1",
        edit("vae/config.json", block_out_channels=["4"]),
        "vae/config.json describes no network: TypeError",
    ),
    "encoder of an unknown function": (
        "sd1",
        edit("text_encoder/config.json", hidden_act="nope"),
        "text_encoder/config.json describes no network: KeyError: 'nope'",
    ),
    "encoder whose sizes are text": (
        "xl",
        edit("text_encoder_2/config.json", num_attention_heads="2"),
        "text_encoder_2/config.json describes no network",
    ),
    "no latents": ("sd1", edit("unet/config.json", sample_size=0), "sample_size is 0, not one number of latents"),
    "latents that are true": ("sd1", edit("unet/config.json", sample_size=True), "sample_size is True"),
    "VAE without a scale": ("sd1", edit("vae/config.json", scaling_factor=None), "scaling_factor of the VAE is None"),
    "VAE of scale 0": ("xl", edit("vae/config.json", scaling_factor=0), "scaling_factor of the VAE is 0; it is a num"),
    "VAE of scale NaN": ("sd1", edit("vae/config.json", scaling_factor=float("nan")), "scaling_factor of the VAE is n"),
    "VAE with transparency": ("sd1", edit("vae/config.json", out_channels=4), "makes images of 4 channels"),
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
    "length that is text": (
        "sd1",
        edit("tokenizer/tokenizer_config.json", model_max_length="12"),
        "is '12', but its encoder takes 12",
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
    "continuous time": (
        "xl",
        edit(SCHEDULER, _class_name="EulerDiscreteScheduler", timestep_type="continuous"),
        "timestep_type is 'continuous'; rfbench knows discrete",
    ),
    "no training steps": ("sd1", edit(SCHEDULER, num_train_timesteps=0), "num_train_timesteps of the scheduler is 0, "),
    "training steps as text": ("xl", edit(SCHEDULER, num_train_timesteps="1000"), "is '1000', not a whole number"),
    "negative offset": ("xl", edit(SCHEDULER, steps_offset=-1), "steps_offset of the scheduler is -1, not a whole"),
    "beta NaN": ("sd1", edit(SCHEDULER, beta_start=float("nan")), "beta_start of the scheduler is nan; a beta is"),
    "beta above 1": ("sd1", edit(SCHEDULER, beta_end=12), "beta_end of the scheduler is 12; a beta is a number betw"),
    "beta as text": ("sd2", edit(SCHEDULER, beta_end="0.012"), "beta_end of the scheduler is '0.012'"),
    "too few betas": ("sd1", edit(SCHEDULER, trained_betas=[0.1, 0.2]), "trained_betas of the scheduler has 2 numbers"),
    "a negative beta": (
        "sd1",
        edit(SCHEDULER, num_train_timesteps=2, trained_betas=[0.1, -0.2]),
        "trained_betas.1 of the scheduler is -0.2",
    ),
    "prediction of the image": ("sd1", edit(SCHEDULER, prediction_type="sample"), "prediction_type is 'sample'"),
    "prediction of a flow": ("xl", edit(SCHEDULER, prediction_type="flow_prediction"), "is 'flow_prediction'"),
    "thresholding": ("sd1", edit(SCHEDULER, thresholding=True), "asks for thresholding"),
    "zero terminal SNR": ("sd2", edit(SCHEDULER, rescale_betas_zero_snr=True), "asks for rescale_betas_zero_snr"),
    "clipping in XL": ("xl", edit(SCHEDULER, clip_sample=True), "asks for clip_sample"),
    "clipping in XL, unsaid": ("xl", edit(SCHEDULER, "clip_sample"), "asks for clip_sample"),
}
