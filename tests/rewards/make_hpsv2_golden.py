"""Makes hpsv2_golden.json: what ``hpsv2.score`` itself gives on the tiny checkpoint of ``tests/rewards/tiny.py``.

The package pins old versions and its wheel lacks the tokenizer's vocabulary, so it lives in an environment of its own:

    python -m venv golden
    golden/bin/pip install torch torchvision open_clip_torch
    golden/bin/pip install --no-deps hpsv2==1.2.0 clint args requests urllib3 certifi idna charset-normalizer
    cp golden/lib/python3*/site-packages/open_clip/bpe_simple_vocab_16e6.txt.gz \
       golden/lib/python3*/site-packages/hpsv2/src/open_clip/
    golden/bin/python -m tests.rewards.make_hpsv2_golden

Only the network's sizes and the download of the weights that the checkpoint replaces anyway are patched. The package
needs tkinter. ``legacy`` numbers are made with torchvision's resize as it was before 0.17, without antialiasing.
"""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import torch
import torchvision
from hpsv2 import img_score
from hpsv2.src.open_clip import factory, transform

from tests.rewards import tiny

GOLDEN = Path(__file__).with_name("hpsv2_golden.json")


def main() -> None:
    factory._MODEL_CONFIGS["ViT-H-14"] = tiny.HPSV2_CONFIG
    create = img_score.create_model_and_transforms
    img_score.create_model_and_transforms = lambda name, pretrained, **options: create(name, **options)
    resize = transform.F.resize
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = tiny.make_hpsv2(Path(folder))["path"]
        for name, antialias in (("today", True), ("legacy", False)):
            transform.F.resize = functools.partial(resize, antialias=antialias)
            found[name] = [
                [float(img_score.score(tiny.picture(*size), prompt, cp=path)[0]) for prompt in tiny.PROMPTS]
                for size in tiny.SIZES
            ]
    made_with = f"hpsv2 1.2.0, torch {torch.__version__}, torchvision {torchvision.__version__}"
    GOLDEN.write_text(json.dumps({"made_with": made_with} | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
