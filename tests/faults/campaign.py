"""The kinds of faults, their trials, and the table of what held."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults import bad_input, clock, damage, disk, folders, kills, plugins, stopping, writers
from tests.faults.trial import Broken, Trial, Void


@dataclass(frozen=True)
class Kind:
    """A kind of fault, and how many trials the campaign makes of it."""

    what: str
    trials: int
    function: Callable[[Trial], None]


KINDS = {
    "kill": Kind("kill -9 of a run and of its resumes", 80, kills.kill_run),
    "kill-overwrite": Kind("kill -9 of a run that starts over", 12, kills.kill_overwrite),
    "kill-evaluate": Kind("kill -9 of evaluate", 14, kills.kill_evaluate),
    "kill-calibrate": Kind("kill -9 of calibrate", 12, kills.kill_calibrate),
    "kill-export": Kind("kill -9 of export", 16, kills.kill_export),
    "kill-two": Kind("kill -9 of one of two processes, or of both", 10, kills.kill_one_of_two),
    "kill-sweep": Kind("kill -9 of a sweep", 3, kills.kill_sweep),
    "stop": Kind("SIGINT, SIGTERM, SIGHUP, SIGUSR2", 15, stopping.stop),
    "disk-limit": Kind("a file that does not fit", 12, disk.limited_files),
    "disk-full": Kind("a full disk", 12, disk.full_disk),
    "damage-resume": Kind("files damaged or foreign, then a resume", 30, damage.resume),
    "damage-read": Kind("files damaged or foreign, then a command that reads", 30, damage.read),
    "plugin-refused": Kind("plugins that give what cannot be right", 30, plugins.refused),
    "plugin-harmless": Kind("plugins that change what must not matter", 12, plugins.harmless),
    "plugin-hangs": Kind("rewards that never answer", 6, plugins.hangs),
    "writers": Kind("two writers at once", 15, writers.two_writers),
    "clock": Kind("a clock that jumps", 10, clock.jumping_clock),
    "flags": Kind("arguments of nonsense", 60, bad_input.flags),
    "settings": Kind("settings of nonsense", 40, bad_input.settings),
    "suites": Kind("suite files changed at random", 40, bad_input.suites),
    "prompts": Kind("prompt files of anything", 30, bad_input.prompts),
    "folders": Kind("folders of results with anything in them", 20, folders.results),
}


@dataclass(frozen=True)
class Outcome:
    """How a trial ended; ``broke`` says what rfbench did instead of holding, ``void`` why it could not be made."""

    kind: str
    seed: int
    kills: int = 0
    broke: str | None = None
    void: str | None = None


def campaign(
    kinds: Sequence[str],
    folder: Path,
    seeds: Sequence[int] | None = None,
    trials: int | None = None,
    keep: bool = False,
) -> list[Outcome]:
    """Trials of each kind, with these seeds or from 0 on, a line for each; what breaks is told with what repeats it.

    Ctrl-C ends it with what was tried so far.
    """
    outcomes: list[Outcome] = []
    with suppress(KeyboardInterrupt):
        for name in kinds:
            for seed in seeds if seeds is not None else range(KINDS[name].trials if trials is None else trials):
                outcome = attempt(name, seed, folder, keep)
                outcomes.append(outcome)
                kills = f" ({outcome.kills} kills)" if outcome.kills else ""
                print(f"{name} {seed}: {'broke' if outcome.broke else outcome.void or 'held'}{kills}", flush=True)
                if outcome.broke:
                    print(f"  python -m tests.faults --kind {name} --seed {seed}\n  {outcome.broke}", flush=True)
    return outcomes


def attempt(name: str, seed: int, folder: Path, keep: bool = False) -> Outcome:
    """One trial."""
    (folder / "shared").mkdir(parents=True, exist_ok=True)
    own = folder / f"{name}-{seed}" / "here"  # beside it nothing may be written
    own.mkdir(parents=True)
    trial = Trial(name, seed, own, folder / "shared")
    broke = void = None
    try:
        KINDS[name].function(trial)
    except Void as error:
        void = str(error)
    except Broken as error:
        broke = "\n  ".join([*trial.steps, str(error)])
    except Exception:  # also of the campaign itself, which must not be taken for holding
        broke = "\n  ".join([*trial.steps, traceback.format_exc()])
    outcome = Outcome(name, seed, trial.kills, broke, void)
    if keep:
        print("\n".join(trial.steps))
    elif not outcome.broke:
        shutil.rmtree(own.parent, ignore_errors=True)
    return outcome


def table(outcomes: Sequence[Outcome]) -> str:
    """Tried, held and broke, kind by kind, as Markdown."""
    lines = ["| fault | tried | kills | held | broke | kind and seeds |", "|---|---:|---:|---:|---:|---|"]
    for name in dict.fromkeys(outcome.kind for outcome in outcomes):
        of_kind = [outcome for outcome in outcomes if outcome.kind == name]
        seeds = [outcome.seed for outcome in of_kind]
        void = next((f"; not made here: {outcome.void}" for outcome in of_kind if outcome.void), "")
        lines.append(_row(f"{KINDS[name].what}{void}", of_kind, f"`{name}` {min(seeds)}-{max(seeds)}"))
    return "\n".join([*lines, _row("in all", outcomes, "")])


def _row(what: str, outcomes: Sequence[Outcome], seeds: str) -> str:
    made = [outcome for outcome in outcomes if outcome.void is None]
    broke, kills = sum(outcome.broke is not None for outcome in made), sum(outcome.kills for outcome in made)
    return f"| {what} | {len(made)} | {kills or ''} | {len(made) - broke} | {broke} | {seeds} |"
