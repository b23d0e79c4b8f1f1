"""Checkpoint files: what is read, what is refused, and what `rfbench reward convert` makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rfbench.cli import exit_code
from rfbench.errors import InputError
from rfbench.hub import weights as hub
from rfbench.rewards import weights
from tests.program import Program

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.zeros(2)}


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == TENSORS.keys() and all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


def test_the_published_layouts_give_the_same_tensors(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "bare.pth")
    torch.save({"iterations": 3, "name": "HPS_v2", "state_dict": TENSORS, "optimizer": {}}, tmp_path / "training.pt")
    save_file(TENSORS, tmp_path / "safe.safetensors", metadata={"name": "HPS_v2"})
    for name, said in (("bare.pth", None), ("training.pt", "HPS_v2"), ("safe.safetensors", "HPS_v2")):
        found = weights.read(tmp_path / name)
        assert same(found.tensors)
        assert found.name == said


def test_a_pickle_with_code_is_refused_and_never_run(tmp_path: Path) -> None:
    file, it_ran = tmp_path / "model.pt", tmp_path / "it-ran"
    torch.save({"state_dict": TENSORS, "extra": Program(it_ran)}, file)
    with pytest.raises(InputError) as raised:
        weights.read(file)
    assert f"`rfbench reward convert {file} {tmp_path / 'model.safetensors'} --trust`" in str(raised.value)
    assert "loading that can run code" in str(raised.value)
    assert exit_code(["reward", "convert", str(file), str(tmp_path / "model.safetensors")]) == 2
    assert not it_ran.exists()


def test_convert_makes_a_numpy_scalar_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a training script is likely to leave in its checkpoint: ``best = np.float64(...)``."""
    file, safe = tmp_path / "model.pt", tmp_path / "model.safetensors"
    torch.save({"name": "HPS_v2.1", "state_dict": TENSORS, "best": np.float64(0.83)}, file)
    with pytest.raises(InputError, match=r"numpy\S*\.scalar\), and loading that can run code"):
        weights.read(file)
    assert exit_code(["reward", "convert", str(file), str(safe), "--trust"]) == 0
    assert "2 tensors" in capsys.readouterr().out
    found = weights.read(safe)
    assert same(found.tensors)
    assert found.name == "HPS_v2.1"


def test_convert_needs_no_trust_for_plain_tensors_and_overwrites_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, safe = tmp_path / "model.pt", tmp_path / "model.safetensors"
    shared = TENSORS["a.weight"]
    torch.save({"a": shared, "b": shared[0]}, file)  # tensors on one storage, which safetensors refuses
    assert exit_code(["reward", "convert", str(file), str(safe)]) == 0
    assert torch.equal(weights.read(safe).tensors["b"], shared[0])
    assert exit_code(["reward", "convert", str(file), str(safe)]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"PK\x03\x04 torn"])
def test_a_damaged_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is not a checkpoint"):
        weights.read(tmp_path / name)


@pytest.mark.parametrize(
    "fault", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), OSError(5, "I/O error")]
)
def test_a_fault_of_the_machine_is_not_put_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    torch.save(TENSORS, tmp_path / "model.pt")
    monkeypatch.setattr(torch, "load", fail)
    for read in (weights.read, weights.outline, lambda path: weights.convert(path, tmp_path / "new", trust=True)):
        with pytest.raises(type(fault)) as raised:
            read(tmp_path / "model.pt")
        assert raised.value is fault


def test_a_file_without_a_state_dict(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds no state dict"):
        weights.read(tmp_path / "list.pt")


def test_load_names_the_first_differences(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        hub.load(torch.nn.Linear(3, 2), {"weight": torch.zeros(3, 2), "scale": torch.ones(1)}, tmp_path, "a line")
    assert str(raised.value).endswith(
        "does not hold the weights of a line: 3 tensors differ. weight is (3, 2), where (2, 3) is needed; "
        "bias (2,) is missing; scale (1,) is unknown"
    )


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    "content", [b"hello", b"", b"h\x65", b"\x80\x04K", b"(dp0\n.", b"<html></html>", bytes(range(256))]
)
def test_what_is_no_checkpoint_is_told_with_trust_and_without(content: bytes, trust: bool, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.pt (is not a checkpoint, or is damaged|holds no state dict)"):
        weights.convert(tmp_path / "a.pt", tmp_path / "b.safetensors", trust=trust)
    assert not (tmp_path / "b.safetensors").exists()
