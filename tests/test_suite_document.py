"""`rfbench show`: what it prints can be saved and run, and names every key."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rfbench.core import Settings
from rfbench.planning.suite_components import suite_components
from rfbench.suite import toml
from rfbench.suite.loading import load_suite, suite_names
from tests.commands import rfbench

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    assert rfbench("show", *arguments) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", suite_names())
def test_what_is_printed_is_the_same_experiment(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "saved.toml"
    saved.write_text(shown(capsys, name), encoding="utf-8")
    ours, theirs = load_suite(name), load_suite(str(saved))
    hashes = [suite_components(suite).suite_hash for suite in (ours, theirs)]
    assert hashes[0] == hashes[1]
    first = saved.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# {name} version {ours.version}, hash {hashes[0]}"
    assert list(theirs.algorithms) == list(ours.algorithms)
    for label, settings in ours.algorithms.items():
        found = theirs.settings_for(label)
        assert found.model_dump(exclude={"config"}) == settings.model_dump(exclude={"config"})
        assert settings.config.items() <= found.config.items()


def test_every_key_has_its_default_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "small-shapes", "--algorithm", "prdp", "--set", "epochs=7").splitlines()
    said = {line.partition(" =")[0]: line for line in lines if " =" in line and not line.startswith("# small")}
    assert said["epochs"].startswith("epochs = 7")
    assert "default 50; denoising steps" in said["num_steps"]
    assert "default 3.0; KL weight, in reward units per (nat per latent dimension and step)" in said["beta"]
    assert "whose mean and std" not in "".join(lines)  # of ddpo, which was not asked for
    assert said["# reward_noise"].endswith("never on an evaluation's")
    assert [line for line in lines if line.startswith("[algorithms")] == [
        "[algorithms.prdp]",
        "[algorithms.prdp.optimizer]",
        "[algorithms.prdp.config]",
    ]


def test_a_plugin_of_a_file_and_an_algorithm_that_the_suite_does_not_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(
        "from pydantic import Field\n"
        "from rfbench.core import Reward, Settings\n"
        "class GlowConfig(Settings):\n"
        "    strength: float = Field(2.5, description='how bright, in stops')\n"
        "class Glow(Reward):\n"
        "    Config = GlowConfig\n"
        "    unit, version = 'stops', '1'\n"
        "    def __call__(self, images, prompts):\n"
        "        return images.float().mean(dim=(1, 2, 3))\n"
    )
    options = ["--plugin", tmp_path / "mine.py", "--set", "reward={name='glow', strength=3}"]
    printed = shown(capsys, "tiny-shapes", "--algorithm", "dpok", *options)
    assert "strength = 3.0" in printed
    assert "default 2.5; how bright, in stops" in printed
    assert tomllib.loads(printed)["algorithms"].keys() == {"dpok"}
    assert "replay_size" in tomllib.loads(printed)["algorithms"]["dpok"]["config"]


@pytest.mark.parametrize(
    "value",
    [True, 3, -1.5e-7, 1e22, float("inf"), 'a "b" \\ é \x7f \n', [], [1, 2], {"a b": [{"c": 0.1}], "d": "e"}, {}],
)
def test_values_are_read_back_as_they_were_written(value: object) -> None:
    assert tomllib.loads(f"x = {toml.inline(value)}")["x"] == value


def test_what_toml_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be written as TOML"):
        toml.inline(Settings)
