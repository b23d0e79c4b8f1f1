"""``kill -9`` at random moments, once or more, and then the same command to its end."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.faults import runs
from tests.faults.commands import Before, Result, Running, run
from tests.faults.contents import require_same
from tests.faults.moments import Length, counting_calls, moment
from tests.faults.runs import Training
from tests.faults.trial import Broken, Trial, require_proper
from tests.forked import free_port, launched

MOST_KILLS = 3  # of one run, before it may end


def kill_run(trial: Trial) -> None:
    """A run, and the resumes after it: the last leaves the files of a run that nothing disturbed, and no others."""
    training = runs.any_training(trial, trial.random)
    expected, length = runs.whole(trial, training), runs.length(trial, training)
    _killed(trial, training, length, times=trial.random.randint(1, MOST_KILLS))
    require_same(training.folder(trial.folder / "out"), expected)


def kill_overwrite(trial: Trial) -> None:
    """A run that starts over in a finished run's place, with other settings: nothing of the former is left."""
    training = runs.gaussian(trial.random.choice(runs.ALGORITHMS))
    expected, length = runs.whole(trial, training), runs.length(trial, training)
    former = runs.gaussian(training.algorithm, "evaluation.every=1", "evaluation.seed=3")
    trial.done(former.command("out"))
    over = training.command("out", "--overwrite")
    if _kill(trial, over, length).code != 0:
        (record,) = runs.records(trial.folder / "out") or (None,)
        begun = record is not None and record.suite["evaluation"]["seed"] == 0  # else the command is given again
        trial.done(runs.go_on(trial, training) if begun else over)
    require_same(training.folder(trial.folder / "out"), expected)


def kill_evaluate(trial: Trial) -> None:
    """An evaluation of a finished run's last checkpoint: the same command goes on."""
    _kill_judgement(trial, lambda run: ["evaluate", run, "--tier", "quick"])


def kill_calibrate(trial: Trial) -> None:
    """The base model's evaluation."""
    sets = [part for setting in runs.SHORT for part in ("--set", setting)]
    command = ["calibrate", "optimum-gaussian", "--out", "out", *sets]
    expected = trial.once("calibrated", lambda folder: _finish(folder, command))
    length = _length(trial, "calibrated-length", lambda folder: command)
    _until_done(trial, command, length, times=trial.random.randint(1, MOST_KILLS))
    require_same(trial.folder / "out", expected / "out")


def kill_export(trial: Trial) -> None:
    """An export into the run's folder, with weights there or without, with checkpoints or with the weights alone."""
    training = runs.any_training(trial, trial.random)
    finished = Path(shutil.copytree(runs.whole(trial, training), trial.folder / "run"))
    expected = Path(shutil.copytree(finished, trial.folder / "expected"))
    left = trial.random.choice(["both", "checkpoints", "weights"])
    if left == "checkpoints":
        shutil.rmtree(finished / "weights")
    elif left == "weights":  # all that is left of what was trained
        for folder in (finished, expected):
            shutil.rmtree(folder / "checkpoints")
    trial.steps.append(f"left: {left}")
    length = _length(trial, f"exported-{training.name}", lambda folder: ["export", runs.whole(trial, training)])
    _until_done(trial, ["export", finished], length, times=trial.random.randint(1, MOST_KILLS))
    require_same(finished, expected)


def kill_one_of_two(trial: Trial) -> None:
    """One or both processes of a run on two: the other ends by itself, and says so; a resume on two is exact."""
    training = runs.gaussian(trial.random.choice(("prdp", "ddpo", "rwr", "nft")), "compute.timeout_minutes=0.5")

    def make(folder: Path) -> None:
        for result in on_two(training.command("."), folder):
            assert result.code == 0, result.said

    name = f"two-{training.algorithm}"
    expected = training.folder(trial.once(name, make))
    length = runs.length(trial, runs.gaussian(training.algorithm))
    kill = moment(trial.random, Length(2 * length.seconds, length.calls))
    victims: Sequence[int] = trial.random.choice([(0,), (1,), (0, 1)])
    trial.steps.append(f"two processes: {training.command('out')}; killed {victims}: {kill}")
    results = on_two(training.command("out"), trial.folder, {rank: kill for rank in victims})
    trial.kills += sum(result.code == -signal.SIGKILL for result in results)
    for rank, result in enumerate(results):
        require_proper(result, *([signal.SIGKILL] if rank in victims else []))
    if any(result.code != 0 for result in results):
        for result in on_two(runs.go_on(trial, training), trial.folder):
            if result.code != 0:
                raise Broken(f"the resume on two: exit code {result.code}: {result.words[-300:]}")
    require_same(training.folder(trial.folder / "out"), expected)


def kill_sweep(trial: Trial) -> None:
    """A sweep of two runs, from the shell: its runs end with it, and the same command makes them whole."""
    trainings = [runs.gaussian(name) for name in ("prdp", "ddpo")]
    sets = [*runs.SHORT, *(f"algorithms.{training.algorithm}.images_per_prompt=4" for training in trainings)]
    command = ["sweep", "prdp", "ddpo", "--suite", "optimum-gaussian", "--seeds", "0", "--out", "out", "--jobs", "2"]
    command += [part for setting in sets for part in ("--set", setting)]
    seconds = trial.random.uniform(0, 25)
    trial.steps.append(f"rfbench {' '.join(command)}; killed after {seconds:.1f} s")
    sweep = Running(command, trial.folder)
    time.sleep(seconds)
    sweep.send(signal.SIGKILL)
    trial.kills += require_proper(sweep.end(), signal.SIGKILL).code == -signal.SIGKILL
    _wait_for_the_runs(trial.folder / "out")
    trial.done(command)
    for training in trainings:
        log = training.folder(trial.folder / "out").with_suffix(".log")
        assert log.exists()
        require_same(training.folder(trial.folder / "out"), runs.whole(trial, training))


def on_two(arguments: Sequence[str], folder: Path, before: dict[int, Before] | None = None) -> list[Result]:
    """A command on two processes, as torchrun starts them; ``before`` is for one or both of them."""
    port = free_port()
    running = [
        Running(
            arguments,
            folder,
            [before[rank]] if before and rank in before else [],
            launched(rank, 2, port),
        )
        for rank in (0, 1)
    ]
    return [process.end() for process in running]


def _killed(trial: Trial, training: Training, length: Length, times: int) -> None:
    """The run, killed some times, and then to its end: with ``--resume`` where there is something to go on with."""
    for _ in range(times):
        if _kill(trial, runs.go_on(trial, training), length).code == 0:
            return
    trial.done(runs.go_on(trial, training))


def _kill(trial: Trial, command: Sequence[str | Path], length: Length) -> Result:
    return trial.rfbench_killed(command, moment(trial.random, length))


def _until_done(trial: Trial, command: Sequence[str | Path], length: Length, times: int) -> None:
    for _ in range(times):
        if _kill(trial, command, length).code == 0:
            return
    trial.done(command)


def _kill_judgement(trial: Trial, command: Callable[[Path], list[str | Path]]) -> None:
    training = runs.any_training(trial, trial.random)
    finished = Path(shutil.copytree(runs.whole(trial, training), trial.folder / "run"))
    judged = trial.once(f"judged-{training.name}", lambda folder: _judge(trial, training, command, folder))
    length = _length(trial, f"judged-length-{training.name}", lambda folder: command(_copy(trial, training, folder)))
    _until_done(trial, command(finished), length, times=trial.random.randint(1, MOST_KILLS))
    require_same(finished, judged / "run")


def _judge(trial: Trial, training: Training, command: Callable[[Path], list[str | Path]], folder: Path) -> None:
    _finish(folder, command(_copy(trial, training, folder)))


def _copy(trial: Trial, training: Training, folder: Path) -> Path:
    return Path(shutil.copytree(runs.whole(trial, training), folder / "run"))


def _finish(folder: Path, command: Sequence[str | Path]) -> None:
    result = run(command, folder)
    assert result.code == 0, result.said


def _length(trial: Trial, name: str, command: Callable[[Path], Sequence[str | Path]]) -> Length:
    """How long a command takes; measured once."""

    def measure(folder: Path) -> None:
        arguments = command(folder)
        running = Running(arguments, folder)
        result = running.end()
        seconds = time.monotonic() - running.began
        assert result.code == 0, result.said
        for made in (folder / "run", folder / "out"):
            shutil.rmtree(made, ignore_errors=True)
        counted = run(command(folder), folder, counting_calls(folder / "calls"))
        assert counted.code == 0, counted.said
        (folder / "length").write_text(f"{seconds} {(folder / 'calls').read_text()}")

    seconds, calls = (trial.once(name, measure) / "length").read_text().split()
    return Length(float(seconds), int(calls))


def _wait_for_the_runs(out: Path) -> None:
    """Until no process writes into a run's folder any more: a killed sweep's runs end at their next epoch."""
    end = time.monotonic() + 60
    while any(_working_folder(process) == out.parent for process in Path("/proc").glob("[0-9]*")):
        if time.monotonic() > end:
            raise Broken("a run goes on without its sweep")
        time.sleep(0.2)


def _working_folder(process: Path) -> Path | None:
    with suppress(OSError):  # it has ended, or is another user's
        return (process / "cwd").readlink()
    return None
