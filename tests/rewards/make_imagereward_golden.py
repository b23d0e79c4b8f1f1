"""Makes imagereward_golden.json: what image-reward 1.5 itself gives on the tiny checkpoint of ``tiny.py``.

The package needs libraries of 2024, so it lives in an environment of its own:

    python -m venv golden
    golden/bin/pip install torch torchvision tqdm requests pyyaml regex safetensors packaging filelock fsspec
    golden/bin/pip install 'transformers==4.40.2' 'timm==0.6.13'
    golden/bin/pip install --no-deps 'image-reward==1.5'
    golden/bin/python -m tests.rewards.make_imagereward_golden

Patched are the network's sizes, the tokenizer's vocabulary, and modules that the package imports and nothing here uses:
a CLIP score, training, gradient checkpointing.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import types
from pathlib import Path

import torch

from tests.rewards import tiny

UNUSED = ("clip", "ImageReward.ReFL", "fairscale", "fairscale.nn", "fairscale.nn.checkpoint")
UNUSED += ("fairscale.nn.checkpoint.checkpoint_activations",)
GOLDEN = Path(__file__).with_name("imagereward_golden.json")


def main() -> None:
    for name in UNUSED:
        sys.modules[name] = types.ModuleType(name)
    sys.modules[UNUSED[-1]].checkpoint_wrapper = None  # type: ignore[attr-defined]
    import transformers
    from ImageReward.models.BLIP import blip, blip_pretrain

    package = importlib.import_module("ImageReward.ImageReward")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vocab.txt").write_text("\n".join(tiny.BERT_WORDS))
        (folder / "med_config.json").write_text(json.dumps(tiny.MED_CONFIG | tiny.TEXT))
        tokenizer = transformers.BertTokenizer(folder / "vocab.txt")
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
        tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
        blip_pretrain.init_tokenizer = lambda: tokenizer
        width = tiny.VISION["embed_dim"]
        blip_pretrain.create_vit = lambda *_: (blip.VisionTransformer(**tiny.VISION), width)
        make_head = package.MLP
        package.MLP = lambda _: make_head(tiny.TEXT["hidden_size"])
        model = package.ImageReward(str(folder / "med_config.json"))
        result = model.load_state_dict(tiny.imagereward_weights(), strict=False)
        assert not result.missing_keys, result
        assert not [key for key in result.unexpected_keys if "position_ids" not in key], result
        model.eval()
        with torch.no_grad():
            scores = [[model.score(prompt, tiny.picture(*size)) for prompt in tiny.PROMPTS] for size in tiny.SIZES]
    made_with = f"image-reward 1.5, transformers {transformers.__version__}, torch {torch.__version__}"
    GOLDEN.write_text(json.dumps({"made_with": made_with, "scores": scores}, indent=1) + "\n")


if __name__ == "__main__":
    main()
