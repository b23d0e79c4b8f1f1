"""`rfbench doctor`: what it finds in files, libraries and costs, on real files and real package metadata."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rfbench.doctor.files import examine, format_problem
from rfbench.doctor.libraries import libraries
from rfbench.hub.sources import Need, Source
from rfbench.planning.arithmetic import Arithmetic, arithmetic
from rfbench.planning.device import Demand, Gpu, device_problem
from rfbench.planning.memory import MemoryPart
from rfbench.planning.plan import make_outline
from rfbench.suite.loading import load_suite
from tests.commands import rfbench, said
from tests.hub import COMMIT, Hub


def doctor(*arguments: str | Path) -> int:
    return rfbench("doctor", *arguments)


def test_a_suite_that_can_run(suite_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(suite_file, "--measure", "--set", "algorithms.prdp.images_per_prompt=2") == 0
    printed = said(capsys)
    assert "mine can run on this machine" in printed
    assert "model.path" in printed
    assert "present" in printed
    assert f"torch {torch.__version__.partition('+')[0]}" in printed
    assert "from one chunk that was timed" in printed


def test_missing_files_with_the_lines_that_bring_them(
    hub: Hub,
    here: Path,
    files: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert doctor(*files) == 1
    printed = said(capsys)
    assert "3 of 3 file sets are missing" in printed
    assert f"rfbench fetch {files[0]}" in printed
    assert "--set model.path=PATH --set reward.path=PATH" in printed
    assert hub.requests == []  # it never goes online


def test_checksums_of_what_was_fetched(
    hub: Hub,
    here: Path,
    files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_file({"a": torch.arange(1000)}, tmp_path / "a.safetensors")
    weights = (tmp_path / "a.safetensors").read_bytes()
    hub.repositories["models/owner/model"]["unet/model.safetensors"] = weights
    with zipfile.ZipFile(tmp_path / "reward.zip", "w") as archive:
        archive.writestr("data", "weights")
    hub.repositories["models/owner/reward"]["reward.pt"] = (tmp_path / "reward.zip").read_bytes()
    assert rfbench("fetch", *files) == 0
    assert doctor(*files, "--checksum") == 0
    printed = said(capsys)
    assert "2 of 2 checked" in printed
    assert COMMIT[:8] in printed

    damaged = here / "models--owner--model" / "snapshots" / COMMIT / "unet" / "model.safetensors"
    damaged.resolve().write_bytes(weights[:-1] + b"\x01")
    assert doctor(*files) == 0
    capsys.readouterr()
    assert doctor(*files, "--checksum") == 1
    assert f"has another checksum than published: it is damaged; remove {damaged.resolve()}" in said(capsys)
    damaged.resolve().unlink()
    assert rfbench("fetch", *files) == 0
    assert doctor(*files, "--checksum") == 0


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", b"", "is empty"),
        ("a.json", b'{"a": ', "is not valid JSON"),
        ("a.json", b"{}", None),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git LFS pointer"),
        ("a.safetensors", b"<html>a page, not the file</html>" * 9, "is not a safetensors file, or is cut off"),
        ("a.pt", b"<html>a page, not the file</html>", "is not a file of torch.save"),
        ("a.parquet", b"PAR1 and no end", "is not a Parquet file, or is cut off"),
        ("a.txt", b"a prompt", None),
    ],
)
def test_files_that_are_not_what_their_name_says(
    tmp_path: Path, name: str, content: bytes, problem: str | None
) -> None:
    (tmp_path / name).write_bytes(content)
    found = format_problem(tmp_path / name)
    assert found is None if problem is None else problem in (found or "")


def test_weights_that_are_cut_off(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1000)}, tmp_path / "a.safetensors")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt")
    for path in (tmp_path / "a.safetensors", tmp_path / "a.pt"):
        assert format_problem(path) is None
        path.write_bytes(path.read_bytes()[:-100])
        assert "is cut off" in (format_problem(path) or "")
    found = examine(Need("model", Source("path", str(tmp_path), ("*.safetensors",))))
    assert found.status == "wrong"
    assert "a.safetensors is not a safetensors file" in found.problems[0]


def install(folder: Path, name: str, version: str, *requirements: str) -> None:
    """What pip leaves of a package, without the package."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requirements)]
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")


def test_versions_that_are_known_to_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [library for library in libraries() if library.problems] == []
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "transformers", "4.57.0")
    install(tmp_path, "torchvision", "0.26.0", "torch==2.11.0")
    found = {library.name: " ".join(library.problems) for library in libraries()}
    assert (
        "rfbench needs transformers<6,>=5, but 4.57.0 is installed; pip install 'transformers<6,>=5'"
        in (found["transformers"])
    )
    assert "torchvision 0.26.0 needs torch==2.11.0, but" in found["torchvision"]


def test_a_torchvision_that_does_not_load_beside_this_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    problems = {library.name: " ".join(library.problems) for library in libraries()}
    assert "operator torchvision::nms does not exist" in problems["torchvision"]
    assert "of the same build as torch" in problems["torchvision"]


def test_a_package_that_only_one_reward_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "open_clip.py").write_text("raise ImportError('No module named open_clip')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    terms = '[{ name = "workers", weight = 1.0, reward = { name = "hpsv2" } }]'
    assert doctor("tiny-shapes", "--set", "reward.name=weighted-sum", "--set", f"reward.terms={terms}") == 1
    printed = said(capsys)
    assert "- reward: the reward 'hpsv2' needs open_clip_torch" in printed
    assert "pip install 'rfbench[hpsv2]'" in printed
    assert doctor("tiny-shapes") == 0


def test_wrong_settings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor("tiny-shape") == 2
    assert "did you mean 'tiny-shapes'" in said(capsys)


def test_a_pipeline_of_the_wrong_kind(pipeline: Path, suite_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = pipeline / "model_index.json"
    saved = index.read_text()
    index.write_text(json.dumps(json.loads(saved) | {"_class_name": "FluxPipeline"}))
    try:
        assert doctor(suite_file) == 1
        assert "holds a FluxPipeline" in said(capsys)
        assert rfbench("run", "prdp", "--suite", suite_file, "--dry-run") == 2
    finally:
        index.write_text(saved)


GIB = 2**30
SMALL = [MemoryPart("weights", 10 * GIB, "always"), MemoryPart("activations", 20 * GIB, "update")]


@pytest.mark.parametrize(
    ("gib", "settings", "advice"),
    [
        (80, [], None),
        (24, [], "gradient_checkpointing=true"),
        (24, ["compute.gradient_checkpointing=true"], "compute.chunk_size=32"),
        (8, [], "finetune.method=lora"),
        (8, ["finetune.method=lora"], "a larger card"),
        (8, ["compute.device=cpu"], None),
    ],
)
def test_a_gpu_that_is_too_small(gib: int, settings: list[str], advice: str | None) -> None:
    suite = load_suite("tiny-shapes", ["compute.chunk_size=64", *settings])
    problem = device_problem(suite, Demand(SMALL, Arithmetic(1, 2, 64)), [Gpu("a card", gib * GIB, (9, 0))])
    if advice is None:
        assert problem is None
    else:
        assert "needs about 30.0 GiB of GPU memory" in (problem or "")
        assert advice in (problem or "")


def test_a_gpu_that_is_too_small_for_the_text_encoders() -> None:
    """Which are there while prompts are encoded into a folder, and not beside activations."""
    parts = [*SMALL, MemoryPart("text encoders", 25 * GIB, "encoding")]
    suite, demand = load_suite("tiny-shapes"), Demand(parts, Arithmetic(1, 2, 64))
    problem = device_problem(suite, demand, [Gpu("a card", 24 * GIB, (9, 0))])
    assert "about 35.0 GiB of GPU memory, 25.0 GiB of them for text encoders (encoding)" in (problem or "")
    assert (problem or "").endswith("its text encoders ask for a larger card while prompts are encoded")


@pytest.mark.parametrize(("precision", "told"), [("bf16", True), ("tf32", True), ("fp16", False), ("fp32", False)])
def test_a_gpu_that_lacks_the_precision(precision: str, told: bool) -> None:
    """As the run itself would say, of the least of the GPUs."""
    suite, cards = load_suite("tiny-shapes", [f"compute.precision={precision}"]), [(9, 0), (7, 5)]
    problem = device_problem(suite, None, [Gpu(f"card {card[0]}", 80 * GIB, card) for card in cards])
    assert ("needs a GPU of compute capability 8.0, but card 7 has 7.5" in (problem or "")) == told
    assert told or problem is None


def test_a_gpu_that_is_not_there() -> None:
    suite = load_suite("tiny-shapes", ["compute.device=cuda"])
    assert "torch sees no GPU" in (device_problem(suite, None, []) or "")


def test_arithmetic_is_counted_on_the_architecture() -> None:
    """A linear layer of n by m takes 2nm operations; guidance, checkpointing and backwards count as calls."""
    outline = make_outline(load_suite("tiny-shapes"), "prdp", seed=0)
    asked = arithmetic(outline)
    assert asked is not None
    totals = outline.totals()
    calls = totals.training_forwards + totals.evaluation_forwards + 2 * totals.training_backwards
    assert asked.flops(totals) == asked.forward_flops * calls
    model = outline.model.cls.untrained(outline.model.config, torch.device("cpu"))
    products = []

    def record(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        products.append(2 * output.numel() * module.weight[0].numel())

    for module in model.denoiser.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.register_forward_hook(record)
    condition = model.encode("")["text"]
    model.denoiser(torch.zeros(1, *model.latent_shape), torch.zeros(1), condition)
    assert sum(products) <= asked.forward_flops < 1.3 * sum(products)  # the rest is attention


def test_an_algorithm_that_does_not_fit_is_named_and_keeps_no_other_from_running(
    suite_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = ["algorithms.prdp.images_per_prompt=2", "algorithms.ddpo.images_per_prompt=3"]
    options = [part for table in tables for part in ("--set", table)]
    assert doctor(suite_file, *options) == 0
    assert "but not ddpo: ddpo: images_per_prompt 3 does not divide the budget of 8" in said(capsys)
    assert doctor(suite_file, *options, "--set", "budget.reward_queries_per_epoch=9") == 0
    assert "but not prdp: prdp: images_per_prompt 2 does not divide" in said(capsys)
    assert doctor(suite_file, *options, "--set", "budget.reward_queries_per_epoch=7") == 1
    printed = said(capsys)
    assert "- prdp: images_per_prompt 2 does not divide the budget of 7" in printed
    assert "- ddpo: images_per_prompt 3 does not divide the budget of 7" in printed


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a cat\ra dog\ra fox", "line 1: U+000D"),
        ("a cat\x00\na dog\n", "the control character U+0000"),
        ("a cat\na dog\n", "prompts.train has 2"),
    ],
)
def test_prompts_that_a_run_would_refuse(
    suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, problem: str
) -> None:
    (tmp_path / "p.txt").write_bytes(content.encode())
    options = ["--set", f"prompts.train.path={tmp_path / 'p.txt'}", "--set", "evaluation.sets.seen.num_prompts=2"]
    options += ["--set", "algorithms.prdp.images_per_prompt=2"]
    assert doctor(suite_file, *options) == 1
    assert problem in said(capsys)
    assert rfbench("run", "prdp", "--suite", suite_file, "--out", tmp_path / "out", *options) == 2
    assert problem in said(capsys)


@pytest.mark.parametrize(
    ("suite", "content", "options", "problem"),
    [
        ("optimum-gaussian", "a cat\na dog\n", [], "model (gaussian) does not take the prompts of prompts.train"),
        ("tiny-shapes", "a cat\na dog\n", [], "(shapes-gold) does not take the prompts of evaluation.sets.seen"),
        ("optimum-gaussian", "north\n", ["reward_offsets.added_std=3.5"], "added_std is 3.5, but prompts.train has 1"),
    ],
)
def test_prompts_that_a_part_does_not_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suite: str, content: str, options: list[str], problem: str
) -> None:
    (tmp_path / "p.txt").write_text(content)
    count = content.count("\n")
    sets = f"evaluation.sets={{seen={{prompts='train',seen=true,num_prompts={count},images_per_prompt=1}}}}"
    files = f"prompts={{train={{name='file',path='{tmp_path / 'p.txt'}'}}}}"
    budget = [f"budget.reward_queries_per_epoch={2 * count}", "algorithms.prdp.images_per_prompt=2"]
    given = [part for option in [files, sets, *budget, *options] for part in ("--set", option)]
    assert doctor(suite, *given) == 1
    assert problem in said(capsys)
    assert rfbench("run", "prdp", "--suite", suite, "--out", tmp_path / "out", *given) == 2
    assert problem in said(capsys)
