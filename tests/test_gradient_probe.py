"""The gradient probe on a tiny pipeline: its gradients, what must agree, and how it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.core.conditioning import select
from rfbench.errors import InputError
from rfbench.running.progress import Quiet
from rfbench.running.trainer import train
from rfbench.suite.suite import RewardOffsets, Suite
from rfbench_benchmarks import gradient_probe
from rfbench_benchmarks.gradient_probe import Probe, Reference
from tests import tiny

pytestmark = pytest.mark.slow

SMALL = ["--reference-images", "16", "--batches", "2", "--batch-images", "4", "--images-per-prompt", "2"]
SMALL += ["--base-images", "1", "--beta", "0.01"]


def cosines(out: Path, coordinates: str = "plain") -> dict[tuple[str, int], float]:
    rows = json.loads((out / "probe.json").read_text())["estimators"]
    return {(row["estimator"], row["images_per_prompt"]): row[coordinates]["cosine"] for row in rows}


def test_gradients_are_those_of_the_weighted_log_probs(suite: Suite) -> None:
    """Against one autograd pass over all steps; the second of them is three times the first and is not computed."""
    probe = Probe(suite, seed=1, batch=6, group=3, beta=1.0, base_images=1)
    rollout = probe.rollout(0, 3)
    policy, schedule = probe.run.policy, probe.run.policy.schedule
    weights = [torch.randn(6, 4, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in (0, 1)]
    before = probe.run.meter.counters.denoiser_forwards
    first, thrice, other = probe.gradients(rollout, [weights[0], -3 * weights[0], weights[1]])
    assert probe.run.meter.counters.denoiser_forwards - before == 6 * 4 * 2  # one forward for all
    torch.testing.assert_close(thrice, -3 * first)
    assert rollout.latents is not None
    condition, parameters = select(rollout.condition, rollout.groups), list(policy.trainable().values())
    for found, weight in ((first, weights[0]), (other, weights[1])):
        loss = torch.zeros(())
        for column, step in enumerate(schedule.objective_steps):
            log_probs = policy.log_probs(
                rollout.latents[:, step], rollout.latents[:, step + 1], step.repeat(6), condition
            )
            loss = loss + (weight[:, column] * log_probs).sum() / 6
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]).double()
        assert (found - expected).norm() < 1e-4 * expected.norm()


def test_what_must_agree_at_the_base_model_does_and_a_prompts_constant_moves_the_batchs_mean_alone(
    suite: Suite, tmp_path: Path
) -> None:
    found = []
    for name, changes in (("plain", {}), ("offset", {"reward_offsets": RewardOffsets(added_std=100.0)})):
        file = tiny.write(suite, tmp_path / f"{name}.toml", algorithms={}, **changes)
        gradient_probe.main(["--suite", file, "--out", str(tmp_path / name), *SMALL])
        found.append(cosines(tmp_path / name))
    plain, offset = found
    assert len(plain) == 7
    of_groups = [plain[name, 2] for name in ("group mean", "leave-one-out", "PRDP's coefficients")]
    assert of_groups == pytest.approx([of_groups[0]] * 3, abs=1e-6)  # u = 0 at the base model
    for name in ("group mean", "group mean and std", "leave-one-out"):
        assert offset[name, 2] == pytest.approx(plain[name, 2], abs=1e-3)
    assert abs(offset["batch mean", 2] - plain["batch mean", 2]) > 0.02
    table = (tmp_path / "plain" / "probe.md").read_text()
    assert f"| leave-one-out | 2 | reward | {plain['leave-one-out', 2]:.4f} |" in table


def test_adams_coordinates_divide_by_the_root_mean_square() -> None:
    """A loud coordinate of pure noise hides the signal of the others in plain coordinates, not in Adam's."""
    drawn = torch.randn(32, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1.0
    drawn[:, 0] *= 1e4
    drawn[:, 1] = 0.0  # never moved
    found = Reference(drawn[::2].sum(0), drawn[1::2].sum(0), drawn.square().mean(0))
    even, odd = (half / drawn.square().mean(0).sqrt() for half in (drawn[::2].sum(0), drawn[1::2].sum(0)))
    even[1] = odd[1] = 0.0
    expected = float(torch.nn.functional.cosine_similarity(even, odd, dim=0))
    assert found.cosine(found.even, found.odd, "adam") == pytest.approx(expected, abs=1e-12)
    assert expected > 0.9
    plain = found.cosine(found.even, found.odd, "plain")
    assert plain == pytest.approx(float(torch.sign(found.even[0] * found.odd[0])), abs=0.01)


def test_stopped_and_started_again_it_ends_as_if_it_never_was(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tiny.write(suite, tmp_path / "mine.toml", algorithms={})
    command = ["--suite", file, *SMALL]
    gradient_probe.main([*command, "--out", str(tmp_path / "whole")])
    gradients, calls = Probe.gradients, 0

    def stop_at_times(self: Probe, *arguments: Any) -> list[torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls in (3, 6):  # in the reference, and in the batches
            raise KeyboardInterrupt
        return gradients(self, *arguments)

    monkeypatch.setattr(Probe, "gradients", stop_at_times)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            gradient_probe.main([*command, "--out", str(tmp_path / "cut")])
    gradient_probe.main([*command, "--out", str(tmp_path / "cut")])
    assert calls == 4 + 2 * 2 + 2
    assert (tmp_path / "cut" / "probe.json").read_bytes() == (tmp_path / "whole" / "probe.json").read_bytes()
    with pytest.raises(InputError, match=r"holds a probe whose beta is 0.01, not 2.0; choose another --out"):
        gradient_probe.main([*command, "--out", str(tmp_path / "cut"), "--beta", "2"])


def test_a_runs_policy_from_its_checkpoint_or_its_weights(suite: Suite, tmp_path: Path) -> None:
    run = train(tiny.plan(suite.model_copy(update={"epochs": 1}), "ddpo"), tmp_path, Quiet())
    gradient_probe.main(["--run", str(run), "--out", str(tmp_path / "1"), *SMALL])
    for path in (run / "checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    gradient_probe.main(["--run", str(run), "--out", str(tmp_path / "2"), *SMALL])
    first, second = (cosines(tmp_path / name) for name in "12")
    assert first == pytest.approx(second, abs=1e-4)
    assert json.loads((tmp_path / "1" / "settings.json").read_text())["epoch"] == 1
    assert first["PRDP's coefficients", 2] != first["leave-one-out", 2]  # u is not 0 any more


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reference-images", "100"], "--reference-images 100 is no multiple of 2 x --batch-images 128"),
        (["--images-per-prompt", "3"], "--images-per-prompt 3 must be 2 or more and divide --batch-images 128"),
    ],
)
def test_sizes_that_do_not_fit(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gradient_probe.main(["--suite", "tiny-shapes", "--out", "nowhere", *options])
    assert message in " ".join(capsys.readouterr().err.split())
