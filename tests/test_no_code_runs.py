"""No file that is loaded runs code: every loader says so, and a program in a checkpoint is refused."""

from __future__ import annotations

import ast
import hashlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfbench.files import sha256
from tests.commands import SETS, rfbench, said
from tests.program import IT_RAN, Program

ROOT = Path(__file__).parent.parent
TRUSTED = {("rfbench/rewards/weights.py", "_trusted")}  # `reward convert --trust`, which asks for it
LOADERS = {"load", "loads", "eval", "exec", "from_pretrained", "load_lora_weights", "read_pickle", "unsafe_load"}


def calls() -> Iterator[tuple[str, str, str, dict[str, ast.expr]]]:
    """File, function, name and keywords of every call that could load something."""
    for path in sorted([*(ROOT / "rfbench").rglob("*.py"), *(ROOT / "algorithms").glob("*.py")]):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for call in ast.walk(function):
                    if isinstance(call, ast.Call):
                        keywords = {word.arg: word.value for word in call.keywords if word.arg}
                        yield path.relative_to(ROOT).as_posix(), function.name, ast.unparse(call.func), keywords


def test_every_loader_takes_data_alone() -> None:
    found = [call for call in calls() if call[2].rpartition(".")[2] in LOADERS]
    for path, function, name, keywords in found:
        if name == "torch.load":
            assert (path, function) in TRUSTED or ast.unparse(keywords["weights_only"]) == "True", (path, function)
        assert not name.startswith(("pickle.", "marshal.", "dill.", "joblib.", "yaml.", "numpy.load", "np.load")), path
        assert name not in ("eval", "exec"), path
        if name.startswith(("AutoConfig", "AutoModel", "AutoTokenizer", "AutoProcessor", "AutoImageProcessor")):
            assert ast.unparse(keywords["trust_remote_code"]) == "False", path
    assert len([call for call in found if call[2] == "torch.load"]) >= 4  # it does look


@pytest.mark.parametrize("command", ["run", "evaluate", "export", "sample"])
def test_a_program_in_a_checkpoint_with_right_checksums(
    command: str,
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (newest,) = (finished_run / "checkpoints").iterdir()
    (newest / "state.pt").write_bytes(pickle.dumps(Program()))
    manifest = json.loads((newest / "manifest.json").read_text())
    manifest["sha256"]["state.pt"] = sha256(newest / "state.pt")
    del manifest["checksum"]
    checksum = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (newest / "manifest.json").write_text(json.dumps(manifest | {"checksum": checksum}))
    record = json.loads((finished_run / "run.json").read_text())
    (finished_run / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    commands = {
        "run": ["run", "prdp", "--suite", "optimum-gaussian", "--out", finished_run.parents[2], *SETS, "--resume"],
        "evaluate": ["evaluate", finished_run, "--tier", "quick"],
        "export": ["export", finished_run, "--out", "exported"],
        "sample": ["sample", finished_run, "--prompt", "a point at 0 degrees", "--out", "images"],
    }
    assert rfbench(*commands[command]) == 1
    assert "state.pt" in said(capsys)
    assert not (tmp_path / IT_RAN).exists()
