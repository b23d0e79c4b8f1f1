"""Folders of results in which anything may lie: what cannot be read is said and left out."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.faults import runs
from tests.faults.trial import Broken, Trial

NUMBERS = (0, -1, 1e308, -1e308, 1e-320, 2**63, -(2**70), 10**40, None, "", "x", [], {}, [1], True, "NaN")


def results(trial: Trial) -> None:
    """Three runs, one of which is spoilt, read by compare and watch."""
    numbers = trial.random
    for label in ("prdp", "ddpo", "rwr"):
        finished = runs.whole(trial, runs.gaussian(label))
        shutil.copytree(finished, trial.folder / "out" / "optimum-gaussian" / label / "seed-0")
    victim = trial.folder / "out" / "optimum-gaussian" / numbers.choice(["prdp", "ddpo", "rwr"]) / "seed-0"
    names = numbers.sample(list(SPOILS), numbers.randint(1, 2))
    for name in names:
        if victim.is_dir():
            SPOILS[name](victim, numbers)
    trial.steps.append(f"{victim.parent.name}: {', '.join(names)}")
    page = ["--html", "page.html"] if numbers.random() < 0.2 else []
    compared = trial.rfbench(["compare", "out", "--out", "comparison", *page])
    trial.rfbench(["watch", "out"])
    if compared.code != 0:
        raise Broken(f"two sound runs are not compared: {compared.words[-300:]}")
    if page:
        text = (trial.folder / "page.html").read_text()
        if "<img src=x" in text or "<script>alert" in text:
            raise Broken("markup of a record is on the page")


def _any_value(folder: Path, numbers: random.Random) -> None:
    """One value of a record replaced."""
    file = numbers.choice([folder / "run.json", folder / "metrics.jsonl", folder / "evals.jsonl"])
    if not file.is_file():
        return
    try:
        lines = file.read_text().split("\n") if file.suffix == ".jsonl" else [file.read_text()]
        place = numbers.randrange(len(lines))
        record = json.loads(lines[place])
    except ValueError:  # spoilt before
        return
    table = record
    while True:
        key = numbers.choice(list(table))
        if not (isinstance(table[key], dict) and table[key]) or numbers.random() < 0.3:
            break
        table = table[key]
    table[key] = numbers.choice(
        [*NUMBERS, "<img src=x onerror=alert(1)>", "=HYPERLINK(1)", "[/red]", "../../x", "\u0000"]
    )
    lines[place] = json.dumps(record)
    file.write_text("\n".join(lines))


def _cut(folder: Path, numbers: random.Random) -> None:
    file = folder / numbers.choice(["run.json", "metrics.jsonl", "evals.jsonl"])
    if file.is_file():
        os.truncate(file, numbers.randrange(file.stat().st_size + 1))


def _noise(folder: Path, numbers: random.Random) -> None:
    (folder / numbers.choice(["run.json", "metrics.jsonl", "evals.jsonl"])).write_bytes(numbers.randbytes(300))


def _removed(folder: Path, numbers: random.Random) -> None:
    (folder / numbers.choice(["run.json", "metrics.jsonl", "evals.jsonl"])).unlink(missing_ok=True)


def _renamed(folder: Path, numbers: random.Random) -> None:
    name = numbers.choice(["a b", "ü", "new\nline", "[red]", "$(id)", "<img src=x>", "=1+1", "-x", "x" * 200])
    folder.rename(folder.with_name(name))


def _loop(folder: Path, numbers: random.Random) -> None:
    (folder.parent / "loop").symlink_to(folder.parent.parent)


def _twice(folder: Path, numbers: random.Random) -> None:
    shutil.copytree(folder, folder.with_name("seed-0 copy"))


def _foreign(folder: Path, numbers: random.Random) -> None:
    other = folder.parent / "other"
    other.mkdir(exist_ok=True)
    (other / "run.json").write_text(
        numbers.choice(["{}", "[]", "null", "3", '{"format": 99}', "[" * 5000, '{"a": ' * 3000])
    )


def _samples(folder: Path, numbers: random.Random) -> None:
    for file in (folder / "samples").iterdir():
        file.write_bytes(numbers.randbytes(numbers.randint(0, 100)))


SPOILS: dict[str, Callable[[Path, random.Random], None]] = {
    "a value replaced": _any_value,
    "cut": _cut,
    "noise": _noise,
    "removed": _removed,
    "another name": _renamed,
    "a link in a circle": _loop,
    "the run twice": _twice,
    "something else beside it": _foreign,
    "pictures of noise": _samples,
}
