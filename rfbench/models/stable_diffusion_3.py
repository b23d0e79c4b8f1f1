"""Stable Diffusion 3 and 3.5: a diffusers pipeline folder or hub id as a base model, a rectified flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from rfbench.core.conditioning import Condition
from rfbench.core.noising.process import Process
from rfbench.models import flow_schedule, pipeline_folder
from rfbench.models.pipeline_folder import ENCODER, MODEL, T5, PipelineFolder
from rfbench.models.pipeline_model import PipelineModel, Published
from rfbench.models.prompt_tokens import ClipTokens, T5Tokens, Tokens
from rfbench.models.text_encoding import Shapes, StableDiffusion3Text, TextEncoder, TextNetwork
from rfbench.suite.settings import Settings

DEFAULT_PATH = "stabilityai/stable-diffusion-3.5-medium"
FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "transformer/config.json",
    f"transformer/{MODEL}",
    "vae/config.json",
    f"vae/{MODEL}",
    "text_encoder/config.json",
    f"text_encoder/{ENCODER}",
    "text_encoder_2/config.json",
    f"text_encoder_2/{ENCODER}",
    "tokenizer/*",
    "tokenizer/tokenizer.json | tokenizer/vocab.json + tokenizer/merges.txt",
    "tokenizer_2/*",
    "tokenizer_2/tokenizer.json | tokenizer_2/vocab.json + tokenizer_2/merges.txt",
)
T5_FILES = (f"{T5}/config.json", f"{T5}/{ENCODER}", "tokenizer_3/*", "tokenizer_3/tokenizer.json")


class StableDiffusion3Config(Settings):
    """Settings of a Stable Diffusion 3 model."""

    path: str = Field(DEFAULT_PATH, description="pipeline folder, or hub id; of Stable Diffusion 3 or 3.5")
    revision: str | None = Field(
        None, description="the hub's commit; None is the one known for the default path, and 'main' for others"
    )
    resolution: int | None = Field(
        None, ge=8, description="pixels of a side; None is the size that the transformer's config names"
    )
    t5: bool = Field(
        True, description="whether the T5 encoder reads prompts too; false: zeros in its place, and it is not fetched"
    )
    max_sequence_length: int = Field(256, ge=1, le=512, description="tokens of the T5; CLIP's are 77")


class StableDiffusion3(PipelineModel):
    """Stable Diffusion 3 or 3.5, as its folder says; the transformer is trained.

    A timestep is the noise's share; the transformer is told it in training steps, 1000 at pure noise. A LoRA is put on
    the joint attention of image and text by default, as in Flow-GRPO; the image's own attention of 3.5 (``attn2``) and
    the feed-forward layers are left out.
    """

    Config: ClassVar[type[Settings]] = StableDiffusion3Config
    published: ClassVar[Published] = Published(DEFAULT_PATH, "b940f670f0eda2d07fbb75229e779da1ad11eb80", 16.3, "sd35")
    lora_modules: ClassVar[tuple[str, ...]] = tuple(
        f"attn.{name}"
        for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    )

    @classmethod
    def files(cls, config: Any) -> tuple[str, ...]:
        return FILES + (T5_FILES if config.t5 else ())

    @classmethod
    def read_folder(cls, config: Any, path: Path, *, weights: bool = True) -> PipelineFolder:
        return pipeline_folder.read(path, "stable-diffusion-3", t5=config.t5, weights=weights)

    @classmethod
    def make_process(cls, folder: PipelineFolder, config: Any) -> Process:
        patches = folder.latent_size(config.resolution) // folder.denoiser.get("patch_size", 2)
        return flow_schedule.read(folder.scheduler, patches**2)

    @classmethod
    def tokens(cls, folder: PipelineFolder, config: Any) -> dict[str, Tokens]:
        length = config.max_sequence_length
        return {part: T5Tokens(folder, length) if part == T5 else ClipTokens(folder, part) for part in folder.encoders}

    def make_text(self, networks: list[TextNetwork]) -> TextEncoder:
        return StableDiffusion3Text(*networks)

    def condition_shapes(self, folder: PipelineFolder, config: Any) -> Shapes:
        clips = [part for part in folder.encoders if part != T5]
        shapes = {
            "clip": (1, folder.positions(clips[0]), sum(folder.encoders[part]["hidden_size"] for part in clips)),
            "pooled": (1, sum(map(folder.projection, clips))),
        }
        return shapes | ({"t5": (1, config.max_sequence_length, self._joint_width)} if config.t5 else {})

    def _set_up(self, folder: PipelineFolder, config: Any) -> None:
        super()._set_up(folder, config)
        self._training_steps = flow_schedule.training_steps(folder.scheduler)
        self._t5_tokens = config.max_sequence_length

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        return denoiser(
            latents,
            timestep=self._training_steps * timesteps,
            encoder_hidden_states=self._joint_text(condition),
            pooled_projections=condition["pooled"],
            return_dict=False,
        )[0]

    def _joint_text(self, condition: Condition) -> Tensor:
        """CLIP's embeddings, filled up with zeros, and behind them T5's, or as many zeros in its stead."""
        clip, width = condition["clip"], self._joint_width
        t5 = condition["t5"] if "t5" in condition else clip.new_zeros(len(clip), self._t5_tokens, width)
        return torch.cat([pad(clip, (0, width - clip.shape[-1])), t5], dim=1)

    @property
    def _joint_width(self) -> int:
        return int(self._folder.denoiser.get("joint_attention_dim", 4096))
