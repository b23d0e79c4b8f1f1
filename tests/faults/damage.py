"""Files of a run that are torn, flipped, of another run, or of another kind: told, or without consequence."""

from __future__ import annotations

import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from rfbench.running import checkpoint
from tests.faults import runs
from tests.faults.commands import run
from tests.faults.contents import contents, require_same
from tests.faults.runs import Training
from tests.faults.trial import Broken, Trial
from tests.program import IT_RAN, Program
from tests.runs import kill_at

READERS = ("evaluate", "export", "sample", "compare", "watch")


def _stop_after_a_checkpoint(number: int) -> None:
    kill_at(checkpoint, "save", number, before=False)


def interrupted(trial: Trial, training: Training) -> Path:
    """The folder of a run that was killed after its second checkpoint of four; made once."""

    def make(folder: Path) -> None:
        run(training.command("."), folder, (_stop_after_a_checkpoint, (2,)))

    return training.folder(trial.once(f"half-{training.name}", make))


def resume(trial: Trial) -> None:
    """A damaged run is gone on with: it is refused in words, or ends as if nothing had been damaged.

    Pictures are for people: those that were drawn before are neither checked nor drawn again.
    """
    training = runs.gaussian(trial.random.choice(("prdp", "ddpo", "dpok", "rwr")))
    folder = _copy(interrupted(trial, training), trial.folder / "out", training)
    _spoil(trial, folder)
    result = trial.rfbench(training.command("out", "--resume"))
    _require_harmless(trial)
    if result.code == 0:
        require_same(_without_strangers(folder, trial), runs.whole(trial, training), but="samples/")
        return
    trial.done(training.command("out", "--overwrite"))  # the remedy that messages name
    require_same(_without_strangers(folder, trial), runs.whole(trial, training))


def read(trial: Trial) -> None:
    """A damaged finished run is read: what a command makes of it is right, or it says what is wrong."""
    training = runs.gaussian(trial.random.choice(("prdp", "ddpo", "rwr")))
    folder = _copy(runs.whole(trial, training), trial.folder / "out", training)
    _spoil(trial, folder)
    command = trial.random.choice(READERS)
    if command == "evaluate":
        result = trial.rfbench(["evaluate", folder, "--tier", "quick"])
    elif command == "export":
        result = trial.rfbench(["export", folder, "--out", "exported"])
    elif command == "sample":
        result = trial.rfbench(["sample", folder, "--prompt", "a point at 0 degrees", "--images", "1"])
    elif command == "compare":
        result = trial.rfbench(["compare", "out", "--out", "comparison"])
    else:
        result = trial.rfbench(["watch", "out"])
    _require_harmless(trial)
    if result.code == 0 and command == "export":
        require_same(trial.folder / "exported", runs.whole(trial, training) / "weights")


def _copy(finished: Path, out: Path, training: Training) -> Path:
    folder = out / "/".join(finished.parts[-3:])
    folder.parent.mkdir(parents=True)
    return Path(shutil.copytree(finished, folder))


def _spoil(trial: Trial, folder: Path) -> None:
    """Damages one file, or puts another there."""
    numbers = trial.random
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    file = numbers.choice(files)
    name = numbers.choice(list(DAMAGE))
    trial.steps.append(f"{name}: {file.relative_to(folder)}")
    DAMAGE[name](trial, file, numbers)


def _cut(trial: Trial, file: Path, numbers: random.Random) -> None:
    os.truncate(file, numbers.randrange(file.stat().st_size or 1))


def _flip(trial: Trial, file: Path, numbers: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if content:
        content[numbers.randrange(len(content))] ^= 1 << numbers.randrange(8)
    file.write_bytes(content)


def _noise(trial: Trial, file: Path, numbers: random.Random) -> None:
    file.write_bytes(numbers.randbytes(numbers.randint(0, 5000)))


def _remove(trial: Trial, file: Path, numbers: random.Random) -> None:
    file.unlink()


def _folder_in_its_place(trial: Trial, file: Path, numbers: random.Random) -> None:
    file.unlink()
    file.mkdir()


def _link_to_nowhere(trial: Trial, file: Path, numbers: random.Random) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def _program(trial: Trial, file: Path, numbers: random.Random) -> None:
    file.write_bytes(pickle.dumps(Program()))


def _of_another_run(trial: Trial, file: Path, numbers: random.Random) -> None:
    other = runs.whole(trial, runs.gaussian("ddpo-group"))
    same = [path for path in other.rglob(file.name) if path.is_file()]
    if same:
        shutil.copy(same[0], file)


def _strangers(trial: Trial, file: Path, numbers: random.Random) -> None:
    """What network disks, desktops and people leave in every folder."""
    for folder in {file.parent, *(path for path in file.parent.parent.iterdir() if path.is_dir())}:
        for name in (".nfs000000000001", ".DS_Store", "notes.txt", "epoch-old"):
            (folder / name).write_text("not of rfbench")


DAMAGE: dict[str, Callable[[Trial, Path, random.Random], None]] = {
    "cut": _cut,
    "a bit flipped": _flip,
    "noise": _noise,
    "removed": _remove,
    "a folder in its place": _folder_in_its_place,
    "a link to nowhere": _link_to_nowhere,
    "a pickle that runs code": _program,
    "another run's": _of_another_run,
    "strangers beside it": _strangers,
}


def _require_harmless(trial: Trial) -> None:
    if list(trial.folder.rglob(IT_RAN)):
        raise Broken("the code in a file was run")


def _without_strangers(folder: Path, trial: Trial) -> Path:
    for name in contents(folder):
        if Path(name).name in (".nfs000000000001", ".DS_Store", "notes.txt", "epoch-old"):
            (folder / name).unlink()
    return folder
