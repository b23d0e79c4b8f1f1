"""Flags, settings, suites and prompt files that make no sense: refused in words, at once, or rightly taken."""

from __future__ import annotations

import random
from collections.abc import Callable
from importlib import resources

from rfbench.suite.loading import load_suite
from tests.faults.runs import pictures
from tests.faults.trial import Broken, Trial

NASTY = (
    "", " ", "-1", "0", "1", "-0.0", "1e999", "1e-320", "nan", "inf", "-inf", "true", "none", "null", "9" * 400,
    "1_0", "0x10", "[]", "{}", "[[[[", "{a=", "[" * 3000, "'", '"', "\\", "../../..", "/", "/dev/null", "/dev/zero",
    "/proc/self/mem", ".", "..", "~", "$(id)", "`id`", "; id", "%s%n", "{0}", "{{7*7}}", "=1+1", "@x", "<b>", "[/red]",
    "[bold]", "\x1b[31m", "\u202eabc", "日本語", "e\u0301", "\udc80", "a" * 5000, "-", "--", "--help", "-x", "prdp",
    "PRDP", "prdp,ddpo", "1-2-3", "5-0", "0-99999999", "1,,2", "None", "cuda", "tpu", "cuda:99", "fp8", "2026-01-01",
    "[1,2,3]", "{name='prdp'}", "*", "?",
)  # fmt: skip
COMMANDS = (
    ["run", "prdp", "--suite", "optimum-gaussian", "--out", "out", "--dry-run"],
    ["sweep", "prdp", "--suite", "optimum-gaussian", "--seeds", "0", "--out", "out", "--dry-run"],
    ["show", "optimum-gaussian"],
    ["list", "algorithms"],
    ["doctor", "optimum-gaussian"],
    ["compare", "out"],
    ["watch", "out"],
    ["evaluate", "out"],
    ["sample", "out", "--prompt", "a point at 0 degrees", "--out", "images"],
    ["export", "out"],
    ["verify", "out"],
    ["new", "algorithm", "mine"],
    ["reward", "check", "gaussian-linear"],
    ["reward", "convert", "a.pt", "b.safetensors"],
    ["tune", "optimum-gaussian", "--algorithm", "prdp", "--trials", "2", "--out", "out", "--dry-run"],
)
FLAGS = (
    "--seed",
    "--seeds",
    "--out",
    "--plugin",
    "--suite",
    "--algorithm",
    "--trials",
    "--tier",
    "--images",
    "--device",
    "--jobs",
    "--vary",
    "--x",
)


def flags(trial: Trial) -> None:
    """A command with an argument replaced by nonsense, or with a flag of another command."""
    numbers = trial.random
    command = list(numbers.choice(COMMANDS))
    nonsense = numbers.choice(NASTY)
    if numbers.random() < 0.6:
        command[numbers.randrange(1, len(command))] = nonsense
    else:
        command += [numbers.choice(FLAGS), nonsense]
    if "--dry-run" not in command and command[0] in ("run", "sweep", "tune"):
        command.append("--dry-run")
    _give(trial, command)


def settings(trial: Trial) -> None:
    """``--set`` of a setting that exists, to nonsense."""
    numbers = trial.random
    keys = _keys(load_suite("optimum-gaussian").model_dump())
    text = f"{numbers.choice(keys)}={numbers.choice(NASTY)}"
    command = numbers.choice(
        [["show", "optimum-gaussian"], ["run", "prdp", "--suite", "optimum-gaussian", "--out", "out", "--dry-run"]]
    )
    _give(trial, [*command, "--set", text])


def suites(trial: Trial) -> None:
    """A suite's file, changed at random."""
    numbers = trial.random
    content = (resources.files("rfbench_benchmarks.suites") / "optimum-gaussian.toml").read_bytes()
    changes = [numbers.choice(list(CHANGES)) for _ in range(numbers.randint(1, 3))]
    for name in changes:
        content = CHANGES[name](content, numbers)
    (trial.folder / "mine.toml").write_bytes(content)
    trial.steps.append(f"mine.toml: {', '.join(changes)}")
    _give(trial, ["run", "prdp", "--suite", "mine.toml", "--out", "out", "--dry-run"])


def prompts(trial: Trial) -> None:
    """A file of prompts, of any format, with anything in it."""
    numbers = trial.random
    ending = numbers.choice(["txt", "csv", "tsv", "json", "jsonl", "parquet", "md", "", "TXT", "txt.gz"])
    file = trial.folder / f"prompts.{ending}"
    content = numbers.choice(PROMPTS)
    for _ in range(numbers.randint(0, 2)):
        content = CHANGES[numbers.choice(["cut", "a bit flipped", "noise within", "lines doubled"])](content, numbers)
    file.write_bytes(content)
    training = pictures(trial, "prdp", f"prompts.train={{name='file', path='{file}'}}")
    trial.steps.append(f"{file.name}: {content[:60]!r}")
    _give(trial, training.command("out", "--dry-run"))


def _give(trial: Trial, command: list[str]) -> None:
    """Whatever the answer is, it is one: the tests say which."""
    cleaned = [part.replace("\x00", "") for part in command]
    trial.rfbench(cleaned)
    if list(trial.folder.parent.iterdir()) != [trial.folder]:
        raise Broken("something was written outside of the folder")


def _keys(table: object, start: str = "") -> list[str]:
    """The dotted names of all settings."""
    if not isinstance(table, dict):
        return [start.removesuffix(".")]
    return [key for name, inner in table.items() for key in _keys(inner, f"{start}{name}.")] or [start]


def _cut(content: bytes, numbers: random.Random) -> bytes:
    return content[: numbers.randrange(len(content) + 1)]


def _flip(content: bytes, numbers: random.Random) -> bytes:
    changed = bytearray(content or b" ")
    for _ in range(numbers.randint(1, 20)):
        changed[numbers.randrange(len(changed))] ^= 1 << numbers.randrange(8)
    return bytes(changed)


def _noise(content: bytes, numbers: random.Random) -> bytes:
    place = numbers.randrange(len(content) + 1)
    return content[:place] + numbers.randbytes(numbers.randint(1, 40)) + content[place:]


def _lines(content: bytes, numbers: random.Random) -> bytes:
    lines = content.split(b"\n")
    numbers.shuffle(lines)
    return b"\n".join(lines)


def _doubled(content: bytes, numbers: random.Random) -> bytes:
    lines = content.split(b"\n")
    place = numbers.randrange(len(lines))
    return b"\n".join([*lines[: place + 1], *lines[place:]])


def _value(content: bytes, numbers: random.Random) -> bytes:
    lines = content.split(b"\n")
    places = [place for place, line in enumerate(lines) if b"=" in line] or [0]
    place = numbers.choice(places)
    value = numbers.choice(NASTY).encode("utf-8", "surrogatepass")
    lines[place] = lines[place].partition(b"=")[0] + b"= " + numbers.choice([value, b'"' + value + b'"'])
    return b"\n".join(lines)


CHANGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": _cut,
    "a bit flipped": _flip,
    "noise within": _noise,
    "lines in another order": _lines,
    "lines doubled": _doubled,
    "a value replaced": _value,
    "in UTF-16": lambda content, numbers: content.decode("utf-8", "replace").encode("utf-16"),
}
PROMPTS = (
    b"a cat\na dog\na bat\nan ant\na cow\na hen\n",
    b'prompt\n"a cat"\n"a dog"\n"a ""bat"""\nan ant\n',
    b'["a cat", "a dog", "a bat", "an ant"]',
    b'[{"prompt": "a cat"}, {"prompt": "a dog"}, {"prompt": null}]',
    b'{"prompt": "a cat"}\n{"prompt": "a dog"}\n{"prompt": 3}\n',
    b"",
    b"\n\n \n",
    b"\xef\xbb\xbfa cat\r\na dog\r\na bat\r\n",
    b"[" * 100000,
    b"9" * 6000,
    b"\x00" * 100,
    "\u200b\n\u00a0\n😀\nمرحبا\n".encode(),
    b"a cat\n" * 5000,
    b"x" * 100000,
    b"PAR1" + bytes(100) + b"PAR1",
)
