"""PRDP with recomputed log-probs, and the table of precisions at a fixed policy, on a tiny pipeline."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from rfbench.core.learner import Chunk
from rfbench.errors import InputError
from rfbench.plugins import registry
from rfbench.running.assembly import Run
from rfbench.suite.suite import Suite
from rfbench_benchmarks.precision import fixed_policy, recomputed
from rfbench_benchmarks.precision.emulated import Emulated
from rfbench_benchmarks.precision.measure import outcomes
from rfbench_benchmarks.precision.rounding import rounded
from rfbench_benchmarks.precision.second_step import second_step
from tests import tiny


@pytest.fixture
def suite(suite: Suite) -> Suite:
    """One prompt's four images, two steps that are trained."""
    return suite.model_copy(
        update={
            "sampler": suite.sampler.model_copy(update={"num_steps": 3}),
            "budget": suite.budget.model_copy(update={"reward_queries_per_epoch": 4}),
        }
    )


def with_precision(suite: Suite, precision: str, **config: Any) -> Suite:
    """Both PRDPs with the same settings, one update an epoch."""
    registry.add_file(Path(recomputed.__file__))
    table = {"images_per_prompt": 4, "config": {"beta": 0.01, "updates_per_epoch": 1, **config}}
    data = suite.model_dump(mode="json")
    data["compute"]["precision"] = precision
    data["algorithms"] = {"prdp": table, "prdp-recomputed": table}
    return Suite.model_validate(data)


def first_gradient(suite: Suite, label: str) -> tuple[Run, torch.Tensor, dict[str, float]]:
    run = tiny.make_run(tiny.plan(suite, label))
    gradients = tiny.record_gradients(run)
    metrics = run.update(run.rollout(0))
    return run, torch.cat([gradient.flatten() for gradient in gradients]), metrics


def test_in_fp32_recomputed_log_probs_give_prdps_gradient(suite: Suite) -> None:
    both = with_precision(suite, "fp32")
    plain, expected, _ = first_gradient(both, "prdp")
    again, found, metrics = first_gradient(both, "prdp-recomputed")
    forwards = [run.meter.counters.denoiser_forwards for run in (plain, again)]
    costs = [run.algorithm.cost(1, 4, 2).forwards for run in (plain, again)]
    assert forwards[1] - forwards[0] == 2 * (costs[1] - costs[0])  # with guidance
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert again.learner.start_error is not None
    assert again.learner.start_error < 1e-5
    assert metrics["clip_fraction"] == 0


def test_in_bf16_rounding_alone_is_clipped(suite: Suite) -> None:
    both = with_precision(suite, "bf16", clip_range=1e-6)
    for label, is_clipped in (("prdp", False), ("prdp-recomputed", True)):
        run, _, metrics = first_gradient(both, label)
        assert (metrics["clip_fraction"] > 0) == is_clipped
        assert (metrics["clipped_pairs"] > 0) == is_clipped
        assert run.algorithm.largest_start_error is None  # and so the run goes on


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_rounded_policy_errs_as_one_of_that_precision(suite: Suite, precision: str) -> None:
    """As much as under autocast, in log-probs and gradient; other kernels round otherwise. Then it is as it was."""
    run = tiny.make_run(tiny.plan(with_precision(suite, "fp32")))
    low = tiny.make_run(tiny.plan(with_precision(suite, precision)))
    chunk = next(run.learner.chunks(run.rollout(0)))
    exact = log_probs_and_gradient(run, chunk)
    native = log_probs_and_gradient(low, chunk)
    with rounded(run.policy, precision):
        emulated = log_probs_and_gradient(run, chunk)
    with rounded(run.policy, precision, last_layer_in_fp32=True):
        with_last = log_probs_and_gradient(run, chunk)
    for of_exact, of_native, of_emulated, of_last in zip(exact, native, emulated, with_last, strict=True):
        ratio = (of_emulated - of_exact).norm() / (of_native - of_exact).norm()
        assert 0.5 < ratio < 2
        assert not torch.equal(of_last, of_emulated)
    assert all(map(torch.equal, log_probs_and_gradient(run, chunk), exact))


def log_probs_and_gradient(run: Run, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor]:
    log_probs = run.learner.log_probs(chunk)
    gradients = torch.autograd.grad(1e3 * log_probs.sum(), list(run.policy.trainable().values()))
    return log_probs.detach(), torch.cat([gradient.flatten() for gradient in gradients])


def test_emulation_rounds_what_a_gpus_autocast_rounds() -> None:
    """Layers in the dtype, norms and softmax in fp32, the rest in what it is given; weights' gradients are rounded."""
    hidden, weight = torch.randn(2, 4, 3, 3), torch.randn(4, 4, 1, 1, requires_grad=True)
    with Emulated(torch.bfloat16):
        product = functional.conv2d(hidden, weight)
        assert (product.dtype, functional.group_norm(product, 2).dtype) == (torch.bfloat16, torch.float32)
        assert (product.softmax(1).dtype, functional.silu(product).dtype) == (torch.float32, torch.bfloat16)
        assert (product + hidden).dtype == torch.float32
        assert functional.scaled_dot_product_attention(product, product, product).dtype == torch.bfloat16
    exact = functional.conv2d(hidden.bfloat16().float(), weight.bfloat16().float())
    assert torch.equal(product, exact.bfloat16())
    (gradient,) = torch.autograd.grad(product.float().square().sum(), weight)
    assert torch.equal(gradient, gradient.bfloat16().float())
    assert functional.conv2d(hidden, weight).dtype == torch.float32


@pytest.mark.slow
def test_the_second_step_is_the_algorithms_own(suite: Suite) -> None:
    """Its gradient in fp32 is what the second optimiser step of a run's second epoch takes."""
    for label in ("prdp", "ddpo"):
        other = tiny.make_run(tiny.plan(suite, label))
        other.update(other.rollout(0))
        gradients = tiny.record_gradients(other)
        other.update(other.rollout(1))
        count = len(gradients) // 2
        expected = torch.cat([gradient.flatten() for gradient in gradients[count:]]).double()
        run = tiny.make_run(tiny.plan(suite, label))
        run.update(run.rollout(0))
        moments = copy.deepcopy(run.learner.state_dict()["state"])
        found = outcomes(run.learner, second_step(run, 1), "fp32")
        torch.testing.assert_close(run.learner.state_dict()["state"], moments, rtol=0, atol=0)
        for outcome in found.values():
            assert (outcome.gradient - expected).norm() < 1e-4 * expected.norm()
            assert outcome.log_ratios.abs().max() > 0


def small(suite: Suite, tmp_path: Path) -> list[str]:
    file = tiny.write(suite, tmp_path / "mine.toml")
    return ["--suite", file, "--out", str(tmp_path / "out"), "--batches", "1", "--batch-images", "4"]


def test_the_table(suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed_policy.main([*small(suite, tmp_path), "--epochs-before", "1"])
    result = json.loads((tmp_path / "out" / "table.json").read_text())
    for label in ("prdp", "ddpo"):
        rows = {(row["precision"], row["remedy"]): row for row in result["algorithms"][label]["rows"]}
        assert len(rows) == 8
        exact = rows["fp32", "plain"]
        assert (exact["log_ratio_error_std"], exact["decisions_changed"]) == (0, 0)
        assert exact["cosine"] == pytest.approx(1, abs=1e-12)
        assert rows["fp32", "difference of means"]["log_ratio_error_std"] < 1e-5
        errors = [rows[precision, "plain"]["log_ratio_error_std"] for precision in ("fp16", "bf16")]
        assert 0 < errors[0] < errors[1]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| fp32 | prdp | plain | 0 | 0.00% | 1.00000 | 1.00000 |" in table
    assert table in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "algorithms.prdp.config.updates_per_epoch=1",
            r"prdp takes one optimiser step an epoch, .*updates_per_epoch=2",
        ),
        ("algorithms.prdp.config.clip_range=off", r"prdp\.config\.clip_range is 'off': there are no clip decisions"),
        ("algorithms={}", r"the suite tiny has no settings of prdp; give them in \[algorithms\.prdp\]"),
    ],
)
def test_settings_without_a_clip_at_a_second_step(suite: Suite, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fixed_policy.main([*small(suite, tmp_path), "--set", change])
