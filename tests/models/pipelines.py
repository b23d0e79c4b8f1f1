"""Tiny pipeline folders of every family, with random weights, in the published formats."""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5TokenizerFast

from tests import tiny


def make_sd1(folder: Path) -> Path:
    return tiny.make_pipeline(folder, blocks=tiny.CROSS_ATTENTION)


def make_sd2(folder: Path) -> Path:
    return tiny.make_pipeline(folder, prediction_type="v_prediction", blocks=tiny.CROSS_ATTENTION)


def make_xl(folder: Path) -> Path:
    """The tiny 1.x pipeline's VAE, tokenizer and first encoder, with a second encoder and a UNet as XL has them."""
    base = StableDiffusionPipeline.from_pretrained(
        tiny.make_pipeline(folder / "base", blocks=tiny.CROSS_ATTENTION), safety_checker=None
    )
    first = base.text_encoder.config
    with torch.random.fork_rng():
        torch.manual_seed(1)
        second = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=first.vocab_size,
                hidden_size=8,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=first.max_position_embeddings,
                projection_dim=12,
                hidden_act="gelu",
                bos_token_id=first.bos_token_id,
                eos_token_id=first.eos_token_id,
                pad_token_id=first.pad_token_id,
            )
        )
        unet = UNet2DConditionModel(
            **(tiny.UNET | tiny.CROSS_ATTENTION),
            transformer_layers_per_block=(1, 2),
            cross_attention_dim=16 + 8,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=12 + 6 * 4,
        )
    StableDiffusionXLPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        text_encoder_2=second,
        tokenizer=base.tokenizer,
        tokenizer_2=base.tokenizer,
        unet=unet,
        scheduler=base.scheduler,
        add_watermarker=False,
    ).save_pretrained(folder / "xl")
    return folder / "xl"


def make_sd3(folder: Path, **scheduler: Any) -> Path:
    """As stabilityai/stable-diffusion-3.5-medium: three encoders, of which T5 is in shards, and a second attention.

    CLIP's tokenizers are in separate files, the second one padded with "!"; ``scheduler`` changes its settings.
    """
    base = StableDiffusionPipeline.from_pretrained(
        tiny.make_pipeline(folder / "base", blocks=tiny.CROSS_ATTENTION), safety_checker=None
    )
    vocabulary = ["<pad>", "</s>", "<unk>", "\u2581", *string.ascii_letters, *string.digits, *string.punctuation]
    with torch.random.fork_rng():
        torch.manual_seed(2)
        clips = [_clip(base.text_encoder.config, width, width // 2) for width in (16, 12)]
        t5 = T5EncoderModel(
            T5Config(
                vocab_size=256,  # 198 tokens, filled up to a multiple of 128
                d_model=32,
                d_kv=8,
                d_ff=24,
                num_layers=2,
                num_heads=2,
                feed_forward_proj="gated-gelu",
            )
        )
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=3,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=8 + 6,
            pos_embed_max_size=6,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        )
        vae = AutoencoderKL(
            block_out_channels=(4, 8),
            norm_num_groups=2,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0} | scheduler),
        vae=vae,
        text_encoder=clips[0],
        tokenizer=base.tokenizer,
        text_encoder_2=clips[1],
        tokenizer_2=base.tokenizer,
        text_encoder_3=t5,
        tokenizer_3=T5TokenizerFast(vocab=[(token, -float(len(token))) for token in vocabulary]),
    ).save_pretrained(folder / "sd3")
    _t5_as_published(folder / "sd3" / "tokenizer_3")
    for part in ("tokenizer", "tokenizer_2"):
        _as_published(folder / "sd3" / part, "!" if part == "tokenizer_2" else "<|endoftext|>")
    shutil.rmtree(folder / "sd3" / "text_encoder_3")
    t5.save_pretrained(folder / "sd3" / "text_encoder_3", max_shard_size="20KB")
    return folder / "sd3"


def _clip(like: CLIPTextConfig, width: int, projection: int) -> CLIPTextModelWithProjection:
    """A CLIP text encoder with the tokens of another."""
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "projection_dim": projection}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPTextModelWithProjection(CLIPTextConfig(**like.to_dict() | sizes | layers))


def _t5_as_published(folder: Path) -> None:
    """A T5 tokenizer's folder in the files that transformers 4 wrote: the sentinels are tokens of the vocabulary."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    sentinels = [f"<extra_id_{number}>" for number in range(99, -1, -1)]
    pieces = [piece for piece in whole["model"]["vocab"] if piece[0] not in sentinels]
    whole["model"]["vocab"] = [*pieces, *([token, 0.0] for token in sentinels)]
    numbers = {piece[0]: number for number, piece in enumerate(whole["model"]["vocab"])}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    special = ["<pad>", "</s>", "<unk>", *sentinels]
    whole["added_tokens"] = [{"id": numbers[token], "content": token} | flags for token in special]
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    tokens = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens | {"additional_special_tokens": sentinels[::-1]}))
    settings = {
        "added_tokens_decoder": {str(numbers[token]): {"content": token} | flags for token in special},
        "additional_special_tokens": sentinels[::-1],
        "extra_ids": 100,
        "legacy": True,
        "model_max_length": 512,
        "sp_model_kwargs": {},
        "tokenizer_class": "T5Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | settings))


def _as_published(folder: Path, pad: str) -> None:
    """A CLIP tokenizer's folder in the files that transformers 4 wrote."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokens = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": pad,
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    settings = tokens | {"model_max_length": 12, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


FAMILIES = {"sd1": make_sd1, "sd2": make_sd2, "xl": make_xl, "sd3": make_sd3}
MODELS = dict.fromkeys(FAMILIES, "stable-diffusion") | {"sd3": "stable-diffusion-3"}


def model(family: str, folder: Path) -> dict[str, Any]:
    """A suite's table of the base model in a family's folder; a T5 that reads 16 tokens."""
    return {"name": MODELS[family], "path": str(folder)} | ({"max_sequence_length": 16} if family == "sd3" else {})
