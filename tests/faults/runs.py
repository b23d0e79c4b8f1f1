"""The runs of the campaign, a second long: on the analytic world, or on a tiny pipeline in diffusers' format."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from rfbench.records.format import RunRecord
from tests import tiny
from tests.faults.commands import Running, run
from tests.faults.moments import Length, counting_calls
from tests.faults.trial import SHORT, Trial

ALGORITHMS = ("prdp", "prdp-offline", "ddpo", "ddpo-group", "dpok", "rwr", "rwr-sparse", "nft", "awm", "crd", "dpo")
PICTURES = ("prdp", "ddpo")  # on the tiny pipeline


@dataclass(frozen=True)
class Training:
    """A run: its algorithm, its suite, and the settings that make it short."""

    algorithm: str
    suite: str
    settings: tuple[str, ...]

    def command(self, out: Path | str, *more: str) -> list[str]:
        sets = [part for setting in self.settings for part in ("--set", setting)]
        return ["run", self.algorithm, "--suite", self.suite, "--out", str(out), *sets, *more]

    def folder(self, out: Path) -> Path:
        """Where it lies under ``--out``."""
        (folder,) = out.glob(f"*/{self.algorithm}/seed-0")
        return folder

    @property
    def name(self) -> str:
        return f"{self.algorithm}-{Path(self.suite).stem}"


def gaussian(algorithm: str, *more: str) -> Training:
    """A run on the analytic world."""
    group = (f"algorithms.{algorithm}.images_per_prompt=4",)
    fewer = ("algorithms.dpok.config.batch_size=20", "algorithms.dpok.config.value_updates_per_epoch=4")
    return Training(algorithm, "optimum-gaussian", (*SHORT, *group, *(fewer if algorithm == "dpok" else ()), *more))


def pictures(trial: Trial, algorithm: str, *more: str) -> Training:
    """A run on the tiny pipeline, whose suite is made once."""

    def make(folder: Path) -> None:
        tiny.make_pipeline(folder / "pipeline")
        (folder / "prompts.txt").write_text("\n".join(tiny.PROMPTS))
        final = trial.shared / "suite"  # where this folder will be
        paths = {"pipeline": final / "pipeline", "prompts": final / "prompts.txt"}
        (folder / "tiny.toml").write_text(tiny.SUITE_FILE.format(**paths))

    suite = trial.once("suite", make) / "tiny.toml"
    group = (f"algorithms.{algorithm}.images_per_prompt=2", f"algorithms.{algorithm}.config.updates_per_epoch=2")
    return Training(algorithm, str(suite), ("epochs=2", *group, *more))


def any_training(trial: Trial, numbers: random.Random) -> Training:
    """Nine of ten runs on the analytic world, which is fast; the others draw pictures."""
    if numbers.random() < 0.9:
        return gaussian(numbers.choice(ALGORITHMS))
    return pictures(trial, numbers.choice(PICTURES))


def records(out: Path) -> list[RunRecord]:
    """Those of the runs under ``--out``, each of which must be whole."""
    return [RunRecord.model_validate_json(file.read_bytes()) for file in out.glob("*/*/seed-0/run.json")]


def go_on(trial: Trial, training: Training) -> list[str]:
    """The run's command, with ``--resume`` where a record says that there is something to go on with."""
    return training.command("out", *(["--resume"] if records(trial.folder / "out") else []))


def whole(trial: Trial, training: Training) -> Path:
    """The folder of the run that nothing disturbed; made once."""
    return training.folder(trial.once(f"whole-{training.name}", lambda folder: _make(trial, training, folder)))


def length(trial: Trial, training: Training) -> Length:
    """How long the run takes; measured once."""
    whole(trial, training)
    file = trial.shared / f"whole-{training.name}" / "length"
    seconds, calls = file.read_text().split()
    return Length(float(seconds), int(calls))


def _make(trial: Trial, training: Training, folder: Path) -> None:
    running = Running(training.command("."), folder)
    result = running.end()
    seconds = time.monotonic() - running.began
    assert result.code == 0, result.said
    counted = run(training.command("counted"), folder, counting_calls(folder / "calls"))
    assert counted.code == 0, counted.said
    (folder / "length").write_text(f"{seconds} {(folder / 'calls').read_text()}")
