"""A folder of a CLIP can hold Python code; it is not run, and nobody is asked whether to run it."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import pytest
import torch

from rfbench.rewards.clip import ClipImages, ClipTexts, load_clip
from tests.rewards import tiny

EVIL = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import CLIPConfig as Config, CLIPTokenizer as Tokenizer, CLIPImageProcessor as Processor
"""


@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("config.json", {"AutoConfig": "evil.Config"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Tokenizer", None]}),
        ("preprocessor_config.json", {"AutoImageProcessor": "evil.Processor"}),
    ],
)
def test_code_beside_the_weights(
    file: str, entry: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, marker = tiny.make_clip(tmp_path / "clip"), tmp_path / "it ran"
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
    settings = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(settings | {"auto_map": entry}))
    monkeypatch.setattr(builtins, "input", lambda *_: "y")  # what a hurried user answers
    clip = load_clip(folder, torch.device("cpu"))
    images = ClipImages(clip, folder)(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    texts = ClipTexts(clip, folder)(["a cat"])
    assert images.shape == texts.shape
    assert not marker.exists()
