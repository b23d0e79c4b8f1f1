"""PRDP with recomputed log-probs, and the table of precisions at a fixed policy, on a tiny pipeline."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.errors import InputError
from rfbench.plugins import registry
from rfbench.running.assembly import Run
from rfbench.suite.suite import Suite
from rfbench_benchmarks.precision import fixed_policy, recomputed
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


def test_a_rounded_policy_is_the_one_of_that_precision(suite: Suite) -> None:
    """Bit for bit, with gradient; and afterwards it is as it was."""
    run = tiny.make_run(tiny.plan(with_precision(suite, "fp32")))
    low = tiny.make_run(tiny.plan(with_precision(suite, "bf16")))
    rollout = run.rollout(0)
    chunk = next(run.learner.chunks(rollout))
    exact = run.learner.log_probs(chunk)
    with rounded(run.policy, "bf16"):
        assert torch.equal(run.learner.log_probs(chunk), low.learner.log_probs(chunk))
    with rounded(run.policy, "bf16", last_layer_in_fp32=True):
        assert not torch.equal(run.learner.log_probs(chunk), low.learner.log_probs(chunk))
    assert torch.equal(run.learner.log_probs(chunk), exact)


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
