"""Tiny checkpoints of exactly the published formats, and pictures, the same on every machine.

Weights are drawn from numpy's ``RandomState``, whose stream is frozen, so that golden numbers can be made elsewhere.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

PROMPTS = ["a cat", "a café, near <b>water</b>  at night", "word " * 200, "", "a painting of a dog"]
SIZES = [(64, 64), (224, 224), (300, 512), (512, 300), (97, 31), (512, 512)]  # height, width
HPSV2_CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
MED_CONFIG = {  # what BLIP's med_config.json says beside the sizes
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "model_type": "bert",
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "encoder_width": 768,
    "add_cross_attention": True,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 60,
}
VISION = {"embed_dim": 128, "depth": 2, "num_heads": 2, "patch_size": 32, "img_size": 224}  # of ImageReward's network
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "near", "water", "at", "night", "word"]
BERT_WORDS += [*"bcdefghijklmnopqrstuvwxyz<>/,.", *(f"##{c}" for c in "abcdefghijk"), "painting", "of", "the", "on"]
SIZE_TRICKS = {  # both ways in which the hub's preprocessor_config.json files say "224 pixels"
    "2021": {"size": 64, "crop_size": 64, "feature_extractor_type": "CLIPFeatureExtractor"},
    "2023": {
        "size": {"shortest_edge": 64},
        "crop_size": {"height": 64, "width": 64},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_convert_rgb": True,
        "image_processor_type": "CLIPImageProcessor",
    },
}


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Noise on a gradient."""
    noise = np.random.RandomState(seed).randint(0, 128, (height, width, 3))
    ramp = np.linspace(0, 127, width).astype(int)[None, :, None]
    return Image.fromarray((noise + ramp).astype(np.uint8))


def as_tensor(image: Image.Image) -> Tensor:
    """What a model decodes: uint8 ``(1, 3, H, W)``."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def random_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights by key, of a scale at which every layer matters; one key's do not depend on the others."""

    def draw(key: str, shape: tuple[int, ...]) -> Tensor:
        values = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
        if len(shape) > 1:
            return torch.tensor(values / np.sqrt(np.prod(shape[1:])), dtype=torch.float32)
        return torch.tensor(0.1 * values + key.endswith(".weight"), dtype=torch.float32)

    return {key: draw(key, tuple(shape)) for key, shape in shapes.items()}


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def make_hpsv2(folder: Path, file: str = "HPS_v2_compressed.pt", **entries: Any) -> dict[str, str]:
    """A checkpoint as xswu/HPSv2 has it, and the config of its network; the settings of the reward that use them."""
    import open_clip

    config = folder / "tiny-hpsv2.json"
    config.write_text(json.dumps(HPSV2_CONFIG))
    open_clip.add_model_config(str(config))
    state = random_weights(shapes_of(open_clip.create_model("tiny-hpsv2")))
    torch.save({"iterations": 4000, "name": "tiny", "state_dict": state} | entries, folder / file)
    return {"path": str(folder / file), "architecture": str(config)}


def make_clip(folder: Path, processor: str = "2023") -> Path:
    """A folder with CLIPModel, image processor and tokenizer, as on the hub; 64-pixel pictures, a token a letter."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    characters = [chr(c) for c in range(33, 127)]
    tokens = [*characters, *(c + "</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77, pad_token="<|endoftext|>").save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    end = len(tokens) - 1
    text = {"vocab_size": len(tokens), "max_position_embeddings": 77, "bos_token_id": end - 1}
    config = CLIPConfig(
        text_config={**sizes, **text, "eos_token_id": end, "pad_token_id": end},
        vision_config={**sizes, "image_size": 64, "patch_size": 16},
        projection_dim=24,
    )
    model = CLIPModel(config)
    weights = random_weights({k: v for k, v in shapes_of(model).items() if k != "logit_scale"})
    weights["visual_projection.weight"] *= -1  # which makes the cosines positive, as a trained network's are
    model.load_state_dict(weights, strict=False)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "do_center_crop": True,
                "do_normalize": True,
                "do_resize": True,
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
                "resample": 3,
                **SIZE_TRICKS[processor],
            }
        )
    )
    return folder


def head_weights(features: int, prefix: str = "") -> dict[str, Tensor]:
    """The aesthetic predictor's and ImageReward's head, as published."""
    widths = (features, 1024, 128, 64, 16, 1)
    shapes: dict[str, tuple[int, ...]] = {}
    for number, before, after in zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False):
        shapes |= {f"{prefix}layers.{number}.weight": (after, before), f"{prefix}layers.{number}.bias": (after,)}
    return random_weights(shapes)


def imagereward_weights(vision_sizes: dict[str, int] = VISION, text_sizes: dict[str, int] = TEXT) -> dict[str, Tensor]:
    """All tensors of a published ImageReward.pt."""
    width, patch, side = (vision_sizes[size] for size in ("embed_dim", "patch_size", "img_size"))
    hidden, intermediate, places = (
        text_sizes[size] for size in ("hidden_size", "intermediate_size", "max_position_embeddings")
    )
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(key: str, after: int, before: int) -> None:
        shapes.update({f"{key}.weight": (after, before), f"{key}.bias": (after,)})

    def norm(key: str, size: int) -> None:
        shapes.update({f"{key}.weight": (size,), f"{key}.bias": (size,)})

    vision = "blip.visual_encoder"
    shapes |= {f"{vision}.cls_token": (1, 1, width), f"{vision}.pos_embed": (1, 1 + (side // patch) ** 2, width)}
    shapes |= {
        f"{vision}.patch_embed.proj.weight": (width, 3, patch, patch),
        f"{vision}.patch_embed.proj.bias": (width,),
    }
    for block in (f"{vision}.blocks.{i}" for i in range(vision_sizes["depth"])):
        norm(f"{block}.norm1", width)
        linear(f"{block}.attn.qkv", 3 * width, width)
        linear(f"{block}.attn.proj", width, width)
        norm(f"{block}.norm2", width)
        linear(f"{block}.mlp.fc1", 4 * width, width)
        linear(f"{block}.mlp.fc2", width, 4 * width)
    norm(f"{vision}.norm", width)
    text = "blip.text_encoder"
    shapes |= {f"{text}.embeddings.word_embeddings.weight": (text_sizes["vocab_size"], hidden)}
    shapes |= {f"{text}.embeddings.position_embeddings.weight": (places, hidden)}
    norm(f"{text}.embeddings.LayerNorm", hidden)
    for layer in (f"{text}.encoder.layer.{i}" for i in range(text_sizes["num_hidden_layers"])):
        for attention, source in (("attention", hidden), ("crossattention", width)):
            linear(f"{layer}.{attention}.self.query", hidden, hidden)
            linear(f"{layer}.{attention}.self.key", hidden, source)
            linear(f"{layer}.{attention}.self.value", hidden, source)
            linear(f"{layer}.{attention}.output.dense", hidden, hidden)
            norm(f"{layer}.{attention}.output.LayerNorm", hidden)
        linear(f"{layer}.intermediate.dense", intermediate, hidden)
        linear(f"{layer}.output.dense", hidden, intermediate)
        norm(f"{layer}.output.LayerNorm", hidden)
    linear("blip.vision_proj", 256, width)
    linear("blip.text_proj", 256, hidden)
    weights = random_weights(shapes) | head_weights(hidden, "mlp.")
    return weights | {f"{text}.embeddings.position_ids": torch.arange(places)[None]}


def make_imagereward(
    folder: Path, vision_sizes: dict[str, int] = VISION, text_sizes: dict[str, int] = TEXT
) -> dict[str, str]:
    """Folders as zai-org/ImageReward and google-bert/bert-base-uncased; the settings of the reward that use them."""
    from transformers import BertTokenizer

    torch.save(imagereward_weights(vision_sizes, text_sizes), folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(MED_CONFIG | text_sizes))
    vocabulary = {word: index for index, word in enumerate(BERT_WORDS)}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder / "bert")
    return {"path": str(folder), "tokenizer": str(folder / "bert")}


def settings_of(name: str, folder: Path) -> dict[str, Any]:
    """Settings of a reward that read tiny files, which are made in ``folder``."""
    if name == "hpsv2":
        return make_hpsv2(folder)
    if name == "imagereward":
        return make_imagereward(folder)
    if name == "weighted-sum":
        aesthetic = settings_of("aesthetic", folder)
        terms = ({"name": "pickscore", "path": aesthetic["clip"], "processor": aesthetic["clip"], "weight": 10.0},)
        terms += ({"name": "aesthetic", "weight": 0.05} | aesthetic,)
        return {"terms": _toml(terms)}
    clip = str(make_clip(folder / "clip"))
    if name == "aesthetic":
        torch.save(head_weights(24), folder / "sac+logos+ava1-l14-linearMSE.pth")
        return {"path": str(folder / "sac+logos+ava1-l14-linearMSE.pth"), "clip": clip}
    return {"path": clip} | ({"processor": clip} if name == "pickscore" else {})


def _toml(tables: tuple[dict[str, Any], ...]) -> str:
    """An inline TOML array, for `--set`."""
    rows = (", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) for table in tables)
    return "[" + ", ".join(f"{{ {row} }}" for row in rows) + "]"
