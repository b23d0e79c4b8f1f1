"""What a run costs before it starts: counted from shapes, in days on published rates, in seconds on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rfbench.doctor.diagnosis import diagnose
from rfbench.inference import timing
from rfbench.models.stable_diffusion import StableDiffusion, StableDiffusionConfig
from rfbench.planning.arithmetic import Arithmetic, arithmetic, forward_flops
from rfbench.planning.cards import CARDS, days, duration, find_card
from rfbench.planning.plan import make_outline
from rfbench.plugins.component import find_component
from rfbench.suite.loading import load_suite
from rfbench.suite.suite import PluginRef
from rfbench_benchmarks.pages import costs
from tests.commands import rfbench, said

ROOT = Path(__file__).parent.parent
XL = ROOT / "benchmarks" / "gpu" / "xl"
H100 = next(card for card in CARDS if card.name == "H100")


def test_the_headline_run_by_hand() -> None:
    """1,000 epochs of 512 images; 50 guided steps, 49 of them with a density, a reference and an update pass."""
    outline = make_outline(load_suite("large-hpsv2"), "prdp", seed=0)
    counted = arithmetic(outline)
    assert counted is not None
    assert counted.forward_flops == pytest.approx(0.80e12, rel=0.01)  # 0.40e12 products, as published for 1.x at 512
    training = 1000 * 512 * 2 * (50 + 49 + 49 + 3 * 49)  # sampling, reference, update; its backward, checkpointed
    evaluations = 21 * 6 * 64 * 2 * 2 * (50 + 49)
    flops = counted.flops(outline.totals())
    assert flops == counted.forward_flops * (training + evaluations)
    assert flops == pytest.approx(2.45e20, rel=0.01)
    found = {kind: days(flops, H100, kind) for kind in ("fp32", "tf32", "bf16", "fp16")}
    assert found == pytest.approx({"fp32": 70.6, "tf32": 14.3, "bf16": 7.2, "fp16": 7.2}, rel=0.01)
    assert days(flops, H100, "fp32", cards=8) == pytest.approx(8.8, rel=0.01)


def test_xl_has_its_published_size() -> None:
    """The configs that `make gpu` builds it from; its 5.98e12 operations at 1024 px leave out attention's products.

    Of these, 10 blocks of 640 channels see 64 x 64 tokens, 60 of 1280 see 32 x 32; each attends to itself and to 77.
    """
    model = StableDiffusion.untrained(StableDiffusionConfig(path=str(XL)), torch.device("meta"))
    assert sum(p.numel() for p in model.denoiser.parameters()) == 2_567_463_684
    attention = sum(
        blocks * 4 * tokens * (tokens + 77) * channels
        for blocks, tokens, channels in ((10, 64 * 64, 640), (60, 32 * 32, 1280))
    )
    flops = forward_flops(find_component("models", PluginRef(name="stable-diffusion", path=str(XL))))
    assert flops == pytest.approx(5.98e12 + attention, rel=0.005)


def test_a_card_is_never_slower_than_its_fp32() -> None:
    for card in CARDS:
        assert days(1e20, card, "fp32") >= days(1e20, card, "tf32") >= days(1e20, card, "bf16"), card.name


@pytest.mark.parametrize(
    ("device", "card"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA GeForce RTX 3090", None),
        ("x86_64 CPU, 2 threads", None),
    ],
)
def test_a_measured_share_is_of_the_right_card(device: str, card: str | None) -> None:
    found = find_card(device)
    assert (found.name if found else None) == card


@pytest.mark.parametrize(
    ("length", "said_as"),
    [(70.6, "71 days"), (7.2, "7.2 days"), (0.9, "21.6 hours"), (1 / 24, "1.0 hours"), (0.01, "14 min")],
)
def test_durations(length: float, said_as: str) -> None:
    assert duration(length) == said_as


@pytest.mark.parametrize("path", [None, str(XL)])
def test_a_dry_run_of_a_large_model_says_days(path: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--set", f"model.path={path}", "--set", "model.resolution=512"] if path else []
    assert rfbench("run", "prdp", "--suite", "large-hpsv2", "--dry-run", *options) == 0
    printed = said(capsys)
    for card in CARDS:
        assert f"{card.name} {card.gigabytes} GB" in printed
    assert "8 x 16 bits" in printed
    assert "Assumed, not measured: 60% of a card's published dense rate in fp32, 40% else" in printed
    assert ("71 days 14 days 7.2 days" in printed) == (path is None)


def test_a_dry_run_times_nothing_that_would_take_minutes(
    suite_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files are here; the network is said to be a large one, and must not be run."""
    monkeypatch.setattr(timing, "WORTH_TIMING", 0)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", _never)
    assert rfbench("run", "prdp", "--suite", suite_file, "--dry-run") == 0
    assert "not measured: too slow here" in said(capsys)
    assert rfbench("sweep", "prdp", "--suite", suite_file, "--seeds", "0", "--dry-run") == 0
    assert "not measured: too slow here" in said(capsys)


def test_costs_are_told_of_the_chunk_that_a_run_would_choose(
    suite_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A call of one pair would be worth timing here, and one of the 8 that an epoch has would not."""
    auto = load_suite(str(suite_file), ["compute.chunk_size=auto"])
    flops = forward_flops(make_outline(auto, "prdp", 0).model)
    assert flops is not None
    found = diagnose(auto)
    assert found.demand is not None
    assert (found.demand.arithmetic.rows, found.suite.compute.chunk_size) == (2 * 8, 8)
    monkeypatch.setattr(timing, "WORTH_TIMING", 12 * 2 * 4 * flops)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", _never)
    for command in (["run", "prdp"], ["sweep", "prdp", "--seeds", "0"]):
        options = ["--suite", str(suite_file), "--set", "compute.chunk_size=auto", "--dry-run"]
        assert rfbench(*command, *options) == 0
        assert "not measured: too slow here" in said(capsys)


def _never(*_: object, **__: object) -> None:
    raise AssertionError("weights were loaded")


def test_what_is_too_slow_to_time_is_told_by_size() -> None:
    shapes, sd = Arithmetic(56_200_000, 2, 128), Arithmetic(803_273_441_280, 3, 16)
    assert timing.worth_timing(shapes)
    assert timing.worth_timing(sd) == torch.cuda.is_available()
    assert timing.worth_timing(None)  # a plugin's model whose size cannot be told


@pytest.mark.slow
def test_doctor_sets_the_algorithms_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert rfbench("doctor", "large-hpsv2") == 1
    printed = said(capsys)
    assert "prdp 512,000 151,552,000 50,176,000 3,193,344 70.6" in printed
    assert "the run does not fit on: 4090" in printed
    assert "EFLOP" not in printed


def test_the_page_has_the_costs_of_every_paper_suite() -> None:
    page = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8")
    assert costs.filled(page) == page, "run `python -m rfbench_benchmarks.pages.costs`"
