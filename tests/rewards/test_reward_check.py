"""`rfbench reward check`: good rewards pass, and each way to be wrong is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfbench.cli import exit_code
from tests.rewards import tiny

WRONG = {
    "EveryPair": ("images.float().mean((1, 2, 3))[:, None].repeat(1, len(prompts))", "one score per image"),
    "TooFew": ("images.float().mean((1, 2, 3))[1:]", "one score per image"),
    "Listed": ("[1.0] * len(images)", "one score per image"),
    "Half": ("images.float().mean((1, 2, 3)).half()", "precision"),
    "Undefined": ("images.float().mean((1, 2, 3)) / 0 * 0", "finite"),
    "Noisy": ("images.float().mean((1, 2, 3)) + torch.rand(len(images))", "the same again"),
    "Ranking": ("images.float().mean((1, 2, 3)).argsort().argsort().float()", "one by one"),
    "Sorted": ("images.float().mean((1, 2, 3)).sort()[0]", "in reverse"),
    "Deaf": ("images.float().mean((1, 2, 3))", "reads its prompts"),
}
PLUGIN = """
import torch
from rfbench.core.reward import Reward

class {name}(Reward):
    unit, version = "brightness", "1"
    {declared}
    def __init__(self, config, device): ...
    def __call__(self, images, prompts):
        return {scores}
"""


def verdicts(printed: str) -> dict[str, list[str]]:
    lines = [line.split(maxsplit=1) for line in printed.splitlines() if line.startswith(("pass", "FAIL"))]
    return {verdict: [rest for said, rest in lines if said == verdict] for verdict in ("pass", "FAIL")}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_wrong_is_found(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores, check = WRONG[name]
    file = tmp_path / f"{name.lower()}.py"
    file.write_text(PLUGIN.format(name=f"Bad{name}", scores=scores, declared=""))
    plugin = "bad" + "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)
    assert exit_code(["reward", "check", plugin, "--plugin", str(file), "--size", "32", "--device", "cpu"]) == 1
    assert any(line.startswith(check) for line in verdicts(capsys.readouterr().out)["FAIL"])


def test_a_reward_without_prompts_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "declared_deaf.py"
    scores = WRONG["Deaf"][0]
    file.write_text(PLUGIN.format(name="DeclaredDeaf", scores=scores, declared="uses_prompts = False"))
    assert exit_code(["reward", "check", "declared-deaf", "--plugin", str(file), "--size", "32"]) == 0
    assert "needs no prompts, as declared" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["hpsv2", "pickscore", "clipscore", "aesthetic", "imagereward", "weighted-sum"])
def test_the_reward_models_pass(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tiny.settings_of(name, tmp_path)
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert exit_code(["reward", "check", name, "--size", "96", "--device", "cpu", *options]) == 0
    found = verdicts(capsys.readouterr().out)
    assert len(found["pass"]) == 7
    assert not found["FAIL"]


def test_pictures_of_the_wrong_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["reward", "check", "shapes-preference", "--size", "64", "--device", "cpu"]) == 1
    assert "give it with --size" in capsys.readouterr().err
