"""PickScore, CLIPScore and the aesthetic predictor against transformers' own CLIP on PIL images, one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoImageProcessor, AutoTokenizer, BertConfig, BertModel, CLIPModel

from rfbench.errors import InputError
from rfbench.plugins import registry
from rfbench.rewards.aesthetic import HEAD_FILE, Aesthetic, AestheticConfig
from rfbench.rewards.clipscore import ClipScore, ClipScoreConfig
from rfbench.rewards.pickscore import PickScore, PickScoreConfig
from tests.rewards import tiny

CPU = torch.device("cpu")
PAIRS = [(size, prompt) for size in tiny.SIZES for prompt in ("a cat", "word " * 200)]


@pytest.fixture(scope="module", params=list(tiny.SIZE_TRICKS))
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_clip(tmp_path_factory.mktemp("clip"), request.param)


def outputs(folder: Path, size: tuple[int, int], prompt: str) -> Any:
    """What CLIPModel itself says of one picture and one prompt."""
    model = CLIPModel.from_pretrained(folder)
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(tiny.picture(*size), return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(folder)(prompt, truncation=True, return_tensors="pt")
    return model(**pixels, **tokens), model


@torch.no_grad()
def test_pickscore_is_the_models_logit_without_its_scale(clip: Path) -> None:
    reward = PickScore(PickScoreConfig(path=str(clip), processor=str(clip)), CPU)
    for size, prompt in PAIRS:
        found, model = outputs(clip, size, prompt)
        expected = found.logits_per_text[0, 0] / model.logit_scale.exp()
        assert reward(tiny.as_tensor(tiny.picture(*size)), [prompt]).item() == pytest.approx(expected.item(), abs=1e-6)


@torch.no_grad()
def test_clipscore_is_its_formula(clip: Path) -> None:
    reward = ClipScore(ClipScoreConfig(path=str(clip)), CPU)
    for size, prompt in PAIRS:
        found, _ = outputs(clip, size, f"A photo depicts {prompt}")
        cosine = functional.cosine_similarity(found.image_embeds, found.text_embeds).item()
        assert cosine > 0.01
        score = reward(tiny.as_tensor(tiny.picture(*size)), [prompt])
        assert score.item() == pytest.approx(2.5 * cosine, abs=1e-5)


@torch.no_grad()
def test_clipscore_is_never_negative(tmp_path: Path) -> None:
    weights = load_file(tiny.make_clip(tmp_path) / "model.safetensors")
    save_file(
        weights | {"visual_projection.weight": -weights["visual_projection.weight"]}, tmp_path / "model.safetensors"
    )
    reward = ClipScore(ClipScoreConfig(path=str(tmp_path)), CPU)
    assert reward(tiny.as_tensor(tiny.picture(64, 64)), ["a cat"]).item() == 0


@torch.no_grad()
def test_aesthetic_is_the_published_layers_on_unit_embeddings(clip: Path, tmp_path: Path) -> None:
    head = tiny.head_weights(24)
    torch.save(head, tmp_path / HEAD_FILE)
    reward = Aesthetic(AestheticConfig(path=str(tmp_path / HEAD_FILE), clip=str(clip)), CPU)
    for size, prompt in PAIRS[::2]:
        x: Tensor = outputs(clip, size, prompt)[0].image_embeds[0]
        for layer in (0, 2, 4, 6, 7):
            x = head[f"layers.{layer}.weight"] @ x + head[f"layers.{layer}.bias"]
        score = reward(tiny.as_tensor(tiny.picture(*size)), [prompt])
        assert score.item() == pytest.approx(x.item(), abs=1e-5)


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _other_kind(folder: Path) -> None:
    BertModel(
        BertConfig(hidden_size=8, intermediate_size=8, num_attention_heads=1, num_hidden_layers=1)
    ).save_pretrained(folder)


def _other_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["projection_dim"] = 32
    (folder / "config.json").write_text(json.dumps(config))


def _more_layers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_weights, r"model\.safetensors"),
        (_pickle_only, r"model\.safetensors"),
        (_other_kind, "its config.json says 'bert', not 'clip'"),
        (_other_size, r"2 tensors differ\. .*text_projection\.weight is \(24, 32\), where \(32, 32\) is needed"),
        (_more_layers, r"16 tensors differ\. text_model\.encoder\.layers\.2\.\S+ \(.*\) is missing"),
        (_no_tokenizer, r"tokenizer\.json"),
    ],
)
def test_a_folder_that_is_not_the_model(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    damage(tiny.make_clip(tmp_path))
    with pytest.raises(InputError, match=message):
        PickScore(PickScoreConfig(path=str(tmp_path), processor=str(tmp_path)), CPU)


def _unknown_tensor(folder: Path) -> None:
    save_file(load_file(folder / "model.safetensors") | {"extra": torch.zeros(1)}, folder / "model.safetensors")


def _more_tokens(folder: Path) -> None:
    added = {"190": {"content": "<new>", "special": False}}
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"added_tokens_decoder": added}))


def _torn_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "NoSuchProcessor"}')


@pytest.mark.parametrize("name", ["pickscore", "clipscore", "aesthetic"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_unknown_tensor, r"1 tensors differ\. extra \(1,\) is unknown"),
        (_more_layers, r"16 tensors differ\."),
        (_more_tokens, "has 191 tokens, but its encoder has embeddings of 190"),
        (_torn_processor, "holds no image processor of CLIP"),
    ],
)
def test_what_would_not_load_is_found_without_loading(
    name: str, damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    cls = registry.find("rewards", name)
    config = cls.Config(**tiny.settings_of(name, tmp_path))
    cls.check(config)
    damage(tmp_path / "clip")
    if name == "aesthetic" and damage is _more_tokens:
        cls.check(config)  # it reads no prompts
        return
    with pytest.raises(InputError, match=message):
        cls.check(config)
    with pytest.raises(InputError, match=message):
        cls(config, CPU)


def test_the_published_aesthetic_head_is_known_by_its_content(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its repository's commits are not pinned: another file under the same name is refused, by `doctor` too."""
    snapshot = tmp_path / "models--camenduru--improved-aesthetic-predictor/snapshots/0123"
    snapshot.mkdir(parents=True)
    torch.save(tiny.head_weights(24), snapshot / HEAD_FILE)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs/main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    config = AestheticConfig(clip=str(clip))
    for use in (Aesthetic.check, lambda config: Aesthetic(config, CPU)):
        with pytest.raises(InputError, match=r"is not the published sac\+logos\+ava1-l14-linearMSE.pth: its sha256 is"):
            use(config)


def test_an_aesthetic_head_for_another_clip(tmp_path: Path) -> None:
    clip = tiny.make_clip(tmp_path / "clip")
    torch.save(tiny.head_weights(768), tmp_path / HEAD_FILE)
    with pytest.raises(InputError, match=r"layers\.0\.weight is \(1024, 768\), where \(1024, 24\) is needed"):
        Aesthetic(AestheticConfig(path=str(tmp_path / HEAD_FILE), clip=str(clip)), CPU)
