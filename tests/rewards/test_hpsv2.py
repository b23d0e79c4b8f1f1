"""HPSv2 against numbers of the hpsv2 package itself (``make_hpsv2_golden.py``), and its bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rfbench.errors import InputError
from rfbench.rewards import weights
from rfbench.rewards.hpsv2 import HPSv2, HPSv2Config, letterbox
from tests.rewards import tiny

GOLDEN = json.loads(Path(__file__).with_name("hpsv2_golden.json").read_text())
CPU = torch.device("cpu")
TOLERANCE = 1e-6  # of a cosine; the package's numbers are fp32


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tiny.make_hpsv2(tmp_path_factory.mktemp("hpsv2"))


def make(**settings: Any) -> HPSv2:
    return HPSv2(HPSv2Config(**settings), CPU)


@pytest.mark.parametrize(("legacy", "golden"), [(False, "today"), (True, "legacy")])
@torch.no_grad()
def test_scores_are_those_of_the_package(settings: dict[str, str], legacy: bool, golden: str) -> None:
    reward = make(**settings, legacy_resize=legacy)
    for size, expected in zip(tiny.SIZES, GOLDEN[golden], strict=True):
        images = tiny.as_tensor(tiny.picture(*size)).expand(len(tiny.PROMPTS), -1, -1, -1)
        assert reward(images, tiny.PROMPTS).tolist() == pytest.approx(expected, abs=TOLERANCE)


def test_antialiasing_is_worth_recording(settings: dict[str, str]) -> None:
    """The two resizes differ by far more than float noise, so the version says which one it was."""
    largest = np.abs(np.array(GOLDEN["today"]) - np.array(GOLDEN["legacy"])).max()
    assert largest > 1e-2
    assert make(**settings, legacy_resize=True).version.endswith("legacy resize")


def test_letterbox_centres_a_flat_picture_between_black_bars() -> None:
    boxed = letterbox(torch.ones(1, 3, 20, 10), 8, antialias=True)
    assert boxed.shape == (1, 3, 8, 8)
    assert torch.allclose(boxed[..., 2:6], torch.ones(()))
    assert (boxed[..., :2] == 0).all()
    assert (boxed[..., 6:] == 0).all()


def test_a_wide_picture_of_full_length_is_padded_too() -> None:
    assert letterbox(torch.ones(1, 3, 4, 8), 8, antialias=True).shape == (1, 3, 8, 8)


def test_equal_prompts_are_encoded_once(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    reward, encoded = make(**settings), []
    encode = reward._encode
    monkeypatch.setattr(reward, "_encode", lambda prompts: (encoded.append(prompts), encode(prompts))[1])
    images = tiny.as_tensor(tiny.picture(64, 64)).expand(6, -1, -1, -1)
    reward(images, ["a cat", "a dog", "a cat", "a cat", "a dog", "a cat"])
    assert encoded == [["a cat", "a dog"]]


@pytest.mark.parametrize(
    ("name", "entries", "version", "sign"),
    [
        ("HPS_v2.1_compressed.pt", {}, "v2.0", "HPSv2.1: its name is HPS_v2.1_compressed.pt"),
        ("HPS_v2_compressed.pt", {}, "v2.1", "HPSv2.0: its name is HPS_v2_compressed.pt"),
        ("best.pt", {"name": "HPS_v2.1"}, "v2.0", "HPSv2.1: its 'name' is 'HPS_v2.1'"),
    ],
)
def test_the_other_version_is_refused(
    tmp_path: Path, name: str, entries: dict[str, str], version: str, sign: str
) -> None:
    settings = tiny.make_hpsv2(tmp_path, name, **entries)
    with pytest.raises(InputError) as raised:
        make(**settings, version=version)
    assert sign in str(raised.value)
    assert f"reward.version is {version!r}" in str(raised.value)


def test_the_published_v21_is_known_by_its_checksum(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    renamed = tmp_path / "reward.pt"
    renamed.symlink_to(settings["path"])
    monkeypatch.setattr("rfbench.rewards.hpsv2.V21_DIGEST", weights.digest(renamed))
    with pytest.raises(InputError, match=r"checksum is that of HPS_v2\.1"):
        make(**settings | {"path": str(renamed)})


def test_another_architecture_names_what_differs(settings: dict[str, str], tmp_path: Path) -> None:
    wider = json.loads(Path(settings["architecture"]).read_text()) | {"embed_dim": 48}
    (tmp_path / "wider.json").write_text(json.dumps(wider))
    with pytest.raises(InputError) as raised:
        make(**settings | {"architecture": str(tmp_path / "wider.json")})
    message = str(raised.value)
    assert "does not hold the weights of open_clip's wider: 2 tensors differ" in message
    assert "text_projection is (32, 32), where (32, 48) is needed" in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "no/such/file.pt"}, "no/such/file.pt"),
        ({"path": "nobody/HPSv2"}, "hub"),
    ],
)
def test_a_missing_file(settings: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=message):
        make(**settings)


def test_an_unknown_architecture(settings: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"open_clip knows no network 'ViT-H14' \(did you mean 'ViT-H-14'"):
        make(**settings | {"architecture": "ViT-H14"})


def test_without_open_clip_it_says_what_to_install(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(InputError, match=r"`pip install 'rfbench\[hpsv2\]'`"):
        make(**settings)


def test_what_would_not_load_is_found_without_loading(settings: dict[str, str], tmp_path: Path) -> None:
    HPSv2.check(HPSv2Config(**settings))
    wider = json.loads(Path(settings["architecture"]).read_text()) | {"embed_dim": 48}
    (tmp_path / "wider.json").write_text(json.dumps(wider))
    with pytest.raises(InputError, match=r"2 tensors differ\. \S+ is \(.*\), where \(.*48\) is needed"):
        HPSv2.check(HPSv2Config(**settings | {"architecture": str(tmp_path / "wider.json")}))
    other = tiny.make_hpsv2(tmp_path, "HPS_v2.1_compressed.pt")
    with pytest.raises(InputError, match=r"is HPSv2.1: its name is"):
        HPSv2.check(HPSv2Config(**other))
