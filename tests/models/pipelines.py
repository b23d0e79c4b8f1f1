"""Tiny pipeline folders of every family, with random weights, in the published formats."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from tests import tiny


def make_sd1(folder: Path) -> Path:
    return tiny.make_pipeline(folder)


def make_sd2(folder: Path) -> Path:
    return tiny.make_pipeline(folder, prediction_type="v_prediction")


def make_xl(folder: Path) -> Path:
    """The tiny 1.x pipeline's VAE, tokenizer and first encoder, with a second encoder and a UNet as XL has them."""
    base = StableDiffusionPipeline.from_pretrained(tiny.make_pipeline(folder / "base"), safety_checker=None)
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
            **tiny.UNET,
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


FAMILIES = {"sd1": make_sd1, "sd2": make_sd2, "xl": make_xl}
