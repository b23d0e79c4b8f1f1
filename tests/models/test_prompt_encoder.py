"""Which encoded prompts stay in memory: those that come back; what is kept changes no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rfbench.core import conditioning
from rfbench.core.conditioning import PromptEncoder, memory_bytes, num_bytes, stack
from rfbench.errors import InputError
from rfbench.models import text_networks
from rfbench.models.stable_diffusion import StableDiffusion, StableDiffusionConfig
from rfbench.models.stable_diffusion_3 import StableDiffusion3
from rfbench.running.assembly import Run
from rfbench.suite.suite import Suite
from tests import tiny
from tests.models import pipelines

CPU = torch.device("cpu")


class Counted:
    """A model's ``encode`` that notes what it is asked for."""

    def __init__(self, model: StableDiffusion) -> None:
        self._encode, self.prompts = model.encode, list[str]()

    def __call__(self, prompt: str) -> dict[str, Tensor]:
        self.prompts.append(prompt)
        return self._encode(prompt)


def test_recent_prompts_are_kept_within_bounds_and_change_nothing(folders: dict[str, Path]) -> None:
    model = StableDiffusion(StableDiffusionConfig(path=str(folders["xl"])), CPU)
    one = num_bytes(model.encode("a cat"))
    assert one == 4 * (12 * (16 + 8) + 12)  # 12 tokens of both encoders, and the pooled one
    encode = Counted(model)
    encoder = PromptEncoder(encode, model.unconditional, recent_bytes=2 * one)
    first = encoder(["a cat", "a dog", "a cat"])
    assert encode.prompts == ["a cat", "a dog"]
    encoder(["an ant"])  # "a dog" has waited longest
    again = encoder(["a dog", "a cat"])
    assert encode.prompts == ["a cat", "a dog", "an ant", "a dog", "a cat"]
    assert torch.equal(again["text"], first["text"][[1, 0]])
    assert torch.equal(encoder.empty(3)["pooled"], torch.zeros(3, 12))  # XL: zeros, as without a negative prompt


def test_prompts_that_come_back_are_encoded_once(folders: dict[str, Path]) -> None:
    """The evaluations', whatever training meets between them; the training prompts, where all of them are few."""
    model = StableDiffusion(StableDiffusionConfig(path=str(folders["sd1"])), CPU)
    one = num_bytes(model.encode("a cat"))
    encode = Counted(model)
    encoder = PromptEncoder(encode, recent_bytes=one)
    encoder.keep(["a cat", "a dog"])
    training = [f"a {word}" for word in ("hen", "cow", "bat", "rat")]
    encoder.keep_if_few(training, share=3.9 * one / memory_bytes())
    for prompts in (["a cat", "a dog"], training, ["a dog", "a cat"], training):
        encoder(prompts)
    assert sorted(encode.prompts) == sorted(["a cat", "a dog", *training, *training])
    encoder.keep_if_few(training, share=4.1 * one / memory_bytes())
    encode.prompts.clear()
    for prompts in (training, training, ["a dog"]):
        encoder(prompts)
    assert encode.prompts == training[1:]  # its size was told by the first one


@pytest.mark.parametrize("family", [pytest.param("xl", marks=pytest.mark.slow), "sd3"])
def test_a_folder_keeps_encoded_prompts_and_frees_the_encoders(
    folders: dict[str, Path], prompt_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """To the bit, and a second run loads no encoder; a torn file is encoded again."""

    def make(**settings: Any) -> Run:
        table = pipelines.model(family, folders[family]) | settings
        sampler = {"kind": "flow-sde" if family == "sd3" else "ddpm", "num_steps": 2}
        compute = {"device": "cpu", "prompt_folder": str(tmp_path / "encoded")}
        suite = tiny.make_suite(folders[family], prompt_file, model=table, sampler=sampler, compute=compute)
        return tiny.make_run(tiny.plan(suite))

    table = {key: value for key, value in pipelines.model(family, folders[family]).items() if key != "name"}
    kind = StableDiffusion3 if family == "sd3" else StableDiffusion
    model = kind(kind.Config(**table), CPU)
    expected = stack([model.encode("a dog"), model.unconditional()])

    def require_same(run: Run) -> None:
        encode = run.policy.encode_prompts
        found = stack([encode(["a dog"]), encode.empty(1)])
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())

    first = make()
    first.encode_ahead(0)
    assert first.policy.model._text is None  # type: ignore[attr-defined]
    [folder] = (tmp_path / "encoded").iterdir()
    assert len(list(folder.glob("*.safetensors"))) == len(tiny.PROMPTS) + 1
    with monkeypatch.context() as patch:
        patch.setattr(text_networks, "load", lambda *_: pytest.fail("an encoder was loaded"))
        second = make()
        second.encode_ahead(0)
        require_same(second)
    for file in folder.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    require_same(make())
    if family == "sd3":
        make(max_sequence_length=20)
        assert len(list((tmp_path / "encoded").iterdir())) == 2


def test_a_folder_that_cannot_be_is_named_before_anything_loads(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(StableDiffusion, "__init__", lambda *_: pytest.fail("a model was loaded"))
    compute = suite.compute.model_copy(update={"prompt_folder": str(tmp_path / "file" / "prompts")})
    with pytest.raises(
        InputError, match=r"compute.prompt_folder is .*prompts, in which nothing can be kept: Not a dir"
    ):
        tiny.make_run(tiny.plan(suite.model_copy(update={"compute": compute})))


def test_a_runs_memory_of_prompts_does_not_grow(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every prompt that was kept is an evaluation's, or among the few of a small training set."""
    monkeypatch.setattr(conditioning, "memory_bytes", lambda: 0)
    run = tiny.make_run(tiny.plan(suite))
    encode, model = run.policy.encode_prompts, run.policy.model
    encode._free = num_bytes(model.encode("a cat"))  # beside the one whose size was told
    for epoch in range(3):
        run.rollout(epoch)
    run.evaluator(0)
    assert set(encode._kept) == set(run.plan.evaluation_prompts["seen"])
    assert len(encode._recent) <= 2
