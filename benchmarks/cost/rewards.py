"""Cost of the reward models: 64 images in one call against 64 calls with one.

    python benchmarks/cost/rewards.py [--full] [--only NAME]... [--device cuda] [--size 512] [--repeats 3]

Prints milliseconds per image both ways (on a CPU, of its own time), their ratio, and the largest difference of scores,
relative where a score is above 1. The targets: a ratio of at most 1, and differences below 1e-5. Checkpoints are in the
published formats, with random weights: tiny by default, of the published sizes with --full (up to 4 GB on disk and in
memory, for a GPU).
Prompts come in groups of eight, as in training: a batch encodes each of them once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from rfbench.plugins.component import find_component
from rfbench.suite.suite import PluginRef
from tests.rewards import tiny

NAMES = ("hpsv2", "pickscore", "clipscore", "aesthetic", "imagereward", "jpeg-compressibility")
BATCH = 64
GROUP = 8
VIT_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
VIT_H = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
TEXT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
TEXT_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}


def full_settings(name: str, folder: Path) -> dict[str, str]:
    """Settings of a reward whose files, made in ``folder``, have the published sizes."""
    if name == "hpsv2":
        import open_clip

        path = folder / "HPS_v2_compressed.pt"
        torch.save({"state_dict": open_clip.create_model("ViT-H-14").state_dict()}, path)
        return {"path": str(path)}
    if name == "imagereward":
        vision = {"embed_dim": 1024, "depth": 24, "num_heads": 16, "patch_size": 16, "img_size": 224}
        return tiny.make_imagereward(folder, vision, {**TEXT_L, "vocab_size": 30524, "max_position_embeddings": 512})
    settings = tiny.settings_of(name, folder)
    clip = Path(settings.get("clip", settings["path"]))
    _enlarge(clip, *((VIT_H, TEXT_H, 1024) if name == "pickscore" else (VIT_L, TEXT_L, 768)))
    if name == "aesthetic":
        torch.save(tiny.head_weights(768), settings["path"])
    return settings


def _enlarge(folder: Path, vision: dict[str, int], text: dict[str, int], features: int) -> None:
    from transformers import CLIPConfig, CLIPModel

    end = CLIPConfig.from_pretrained(folder).text_config.eos_token_id  # of the tiny tokenizer, which stays
    places = {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": end}
    config = CLIPConfig(
        text_config={**text, **places, "projection_dim": features},
        vision_config={**vision, "image_size": 224, "patch_size": 14, "projection_dim": features},
        projection_dim=features,
    )
    CLIPModel(config).save_pretrained(folder)
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    sizes = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | sizes))


@torch.no_grad()
def measure(reward: Any, images: Tensor, prompts: list[str], repeats: int) -> tuple[float, float, float]:
    """Milliseconds per image in one call, and in one call each; the largest difference of their scores."""

    def one_by_one() -> Tensor:
        return torch.cat([reward(images[i : i + 1], prompts[i : i + 1]) for i in range(len(images))])

    batch, single = reward(images, prompts).cpu(), one_by_one().cpu()
    difference = float(((batch - single).abs() / single.abs().clamp(min=1)).max())
    clock = time.perf_counter if images.is_cuda else time.process_time  # a CPU may have other work
    together, apart = (
        min(_seconds(call, clock) for _ in range(repeats)) * 1e3 / len(images)
        for call in (lambda: reward(images, prompts), one_by_one)
    )
    return together, apart, difference


def _seconds(call: Callable[[], Tensor], clock: Callable[[], float]) -> float:
    start = clock()
    call().cpu()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the published sizes")
    parser.add_argument("--only", action="append", choices=NAMES, help="these rewards alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    options = parser.parse_args()
    device = torch.device(options.device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, options.size, options.size), generator=generator, dtype=torch.uint8)
    images, prompts = images.to(device), [f"a painting of animal {i // GROUP}" for i in range(BATCH)]
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{'full-size' if options.full else 'tiny'} models, {options.size} px, {place}, torch {torch.__version__}")
    print(f"{'reward':22}{'batch 64':>12}{'batch 1':>12}{'ratio':>8}{'difference':>12}")
    for name in options.only or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            make = full_settings if options.full else tiny.settings_of
            settings = {} if name.startswith("jpeg") else make(name, Path(folder))
            reward = find_component("rewards", PluginRef.model_validate({"name": name} | settings)).make(device)
        together, apart, difference = measure(reward, images, prompts, options.repeats)
        print(f"{name:22}{together:9.2f} ms{apart:9.2f} ms{together / apart:8.2f}{difference:12.1e}", flush=True)


if __name__ == "__main__":
    main()
