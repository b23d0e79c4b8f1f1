"""``compute.chunk_size = "auto"``, and settings that a device cannot take: settled and told before weights load."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rfbench.errors import InputError
from rfbench.planning import chunk_size, memory
from rfbench.planning.chunk_size import choose, settled, with_chunk_sizes
from rfbench.planning.compile_cost import compile_remark
from rfbench.planning.device import check_device, precision_problem
from rfbench.planning.memory import device_peak, memory_account
from rfbench.planning.plan import make_outline
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.loading import load_suite
from rfbench.suite.suite import Suite
from tests import tiny
from tests.commands import rfbench, said

AUTO = {"chunk_size": "auto", "device": "cpu"}


@pytest.mark.parametrize(
    ("suite", "overrides", "size"),
    [
        ("large-shapes", [], 128),  # 56 million operations a row: 256 rows keep a core busy, two for each pair
        ("large-shapes", ["sampler.guidance_scale=1.0"], 128),  # no more than an epoch's 128 images
        ("large-shapes", ["sampler.guidance_scale=1.0", "budget.reward_queries_per_epoch=1024"], 256),
        ("optimum-gaussian", [], chunk_size.FALLBACK),
    ],
)
def test_a_cpus_chunk(suite: str, overrides: list[str], size: int) -> None:
    assert choose(make_outline(load_suite(suite, overrides), "prdp", 0), None) == size


@pytest.mark.slow
def test_a_gpus_chunk_is_the_largest_that_its_memory_takes(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against the account of the chunk itself, and of twice that; each account is made once."""
    outline = make_outline(suite, "prdp", 0)
    account = cache(lambda size: memory_account(with_chunk_sizes(outline, size, None)))
    monkeypatch.setattr(chunk_size, "memory_account", lambda asked: account(asked.suite.compute.chunk_size))
    peaks = {size: device_peak(account(size)) for size in (1, 4, 8, 16)}
    assert choose(outline, round(1.0001 * peaks[4] / 0.9)) == 4
    assert choose(outline, round(0.9999 * peaks[8] / 0.9)) == 4
    assert choose(outline, round(1.0001 * peaks[8] / 0.9)) == 8
    assert choose(outline, 2**40) == 16  # an epoch has 12 images
    assert choose(outline, peaks[1] // 2) == 1  # what does not fit at all is told by check_device


def test_a_gpu_decodes_no_more_at_once_than_training_takes(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """With cuDNN's workspaces. A number in the settings is taken as it is, and on a CPU nothing is settled."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=2**40))
    device, plain = torch.device("cuda"), make_outline(suite, "prdp", 0)
    found = {
        (images, part.when): part.bytes
        for images in (1, 2)
        for part in memory_account(with_chunk_sizes(plain, 8, images))
        if part.name == "activations of a chunk"
    }
    limit = max(found[1, "sampling"], found[1, "update"])
    monkeypatch.setattr(memory, "WORKSPACE_SHARE", limit / (3 * found[1, "decoding"]) - 1)  # room for three images
    outline = with_chunk_sizes(plain, 8, None)
    settled_outline = settled(outline, device)
    assert settled_outline.suite.compute.decode_chunk_size == 2
    assert memory_account(settled_outline) == memory_account(outline)
    assert settled(with_chunk_sizes(plain, 8, 8), device).suite.compute.decode_chunk_size == 8
    assert settled(outline, torch.device("cpu")).suite.compute.decode_chunk_size is None


@pytest.mark.slow
def test_the_record_has_what_was_chosen_and_a_resume_keeps_it(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = Suite.model_validate(suite.model_dump() | {"compute": AUTO})
    fixed = Suite.model_validate(suite.model_dump() | {"compute": AUTO | {"chunk_size": 16}})
    folders = [train(tiny.plan(each), tmp_path / name, Quiet()) for name, each in (("a", auto), ("b", fixed))]
    assert [json.loads((f / "run.json").read_text())["suite"]["compute"]["chunk_size"] for f in folders] == [16, 16]
    assert (folders[0] / "evals.jsonl").read_bytes() == (folders[1] / "evals.jsonl").read_bytes()

    class Stops(Quiet):
        def on_epoch(self, record: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny.plan(auto), tmp_path / "c", Stops())
    monkeypatch.setattr(chunk_size, "BUSY_CPU", 0.0)  # as if it began on another machine
    folder = train(tiny.plan(auto), tmp_path / "c", Quiet(), resume=True)
    assert json.loads((folder / "run.json").read_text())["suite"]["compute"]["chunk_size"] == 16
    assert (folder / "evals.jsonl").read_bytes() == (folders[0] / "evals.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("total_memory", "capability", "precision", "said_of"),
    [
        (
            1000,
            (9, 0),
            "fp32",
            ["with compute.chunk_size 8 a run needs about", "but a card has 0.0 GiB"],
        ),
        (2**40, (7, 5), "bf16", ["'bf16', which needs a GPU of compute capability 8.0, but a card has 7.5"]),
        (2**40, (7, 5), "tf32", ["'tf32', which needs a GPU of compute capability 8.0, but a card has 7.5"]),
        (2**40, (7, 5), "fp16", []),
        (2**40, (8, 0), "bf16", []),
    ],
)
def test_what_a_card_cannot_take(
    suite: Suite,
    monkeypatch: pytest.MonkeyPatch,
    total_memory: int,
    capability: tuple[int, int],
    precision: str,
    said_of: list[str],
) -> None:
    card = SimpleNamespace(name="a card", total_memory=total_memory, major=capability[0], minor=capability[1])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    changes = {"compute": {"chunk_size": 8, "precision": precision}, "finetune": {"method": "lora"}}
    outline = make_outline(Suite.model_validate(suite.model_dump() | changes), "prdp", 0)
    if not said_of:
        check_device(outline, torch.device("cuda"))
        return
    with pytest.raises(InputError) as error:
        check_device(outline, torch.device("cuda"))
    assert all(part in str(error.value) for part in said_of), str(error.value)


def test_every_precision_runs_on_new_cards_and_the_plain_ones_on_all() -> None:
    assert [precision_problem(kind, "a card", (8, 0)) for kind in ("fp32", "tf32", "bf16", "fp16")] == [None] * 4
    assert precision_problem("fp32", "an old card", (3, 5)) is None


def test_compile_is_advised_against_where_it_cannot_pay() -> None:
    """210 s once against a fifth of the sampling: 30 epochs of small-shapes sample for some minutes, 1000 for hours."""
    on = "compute.compile=true"
    remark = compile_remark(make_outline(load_suite("small-shapes", [on]), "prdp", 0))
    assert remark is not None
    assert "takes about 210 s once on a CPU, and would save about" in remark
    assert compile_remark(make_outline(load_suite("small-shapes", [on, "epochs=1000"]), "prdp", 0)) is None
    assert compile_remark(make_outline(load_suite("small-shapes"), "prdp", 0)) is None


def test_other_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("large", "0"):
        assert rfbench("run", "prdp", "--suite", "tiny-shapes", "--set", f"compute.chunk_size={word}") == 2
        assert "compute.chunk_size" in said(capsys)
