"""Two commands that write into one run's folder at once: each is done, or is told that the other is at work."""

from __future__ import annotations

import shutil
import time

from tests.faults import runs
from tests.faults.commands import Running
from tests.faults.contents import require_same
from tests.faults.trial import Broken, Trial, require_proper


def two_writers(trial: Trial) -> None:
    """Any two of run, evaluate and export, some hundredths of a second apart."""
    training = runs.gaussian(trial.random.choice(("prdp", "ddpo")))
    expected = runs.whole(trial, training)
    folder = trial.folder / "out" / "/".join(expected.parts[-3:])
    commands = {
        "run": training.command("out"),
        "overwrite": training.command("out", "--overwrite"),
        "evaluate": ["evaluate", str(folder), "--tier", "quick"],
        "export": ["export", str(folder)],
    }
    names = [trial.random.choice(list(commands)) for _ in range(2)]
    if names != ["run", "run"]:
        folder.parent.mkdir(parents=True)
        shutil.copytree(expected, folder)
    apart = trial.random.uniform(0, 0.5)
    trial.steps.append(f"{names[0]}, and {names[1]} after {apart:.2f} s")
    first = Running(commands[names[0]], trial.folder)
    time.sleep(apart)
    second = Running(commands[names[1]], trial.folder)
    results = [require_proper(first.end()), require_proper(second.end())]
    if all(result.code != 0 for result in results):
        raise Broken(f"neither was done: {results[0].words[-200:]} / {results[1].words[-200:]}")
    for name, result in zip(names, results, strict=True):
        told = ("is being written by another process", "--resume goes on with it", "holds no checkpoint", "is no run")
        told = (*told, "nothing of what it trained is left")
        if result.code != 0 and not any(words in result.words for words in told):
            raise Broken(f"{name} was not told why: {result.words[-300:]}")
    for name in ("quick.jsonl", "quick.json"):  # an evaluation's own
        (folder / name).unlink(missing_ok=True)
    require_same(folder, expected)
