"""The commands that the pages show, as a shell hands them on: loops, variables and continued lines included."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

from rfbench.cli.app import commands

ROOT = Path(__file__).parents[1]
FIRST = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
PAGES = [*FIRST, *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(r"^( *)```bash\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(rfbench [^`]+)`")
NAMES = "|".join(str(one.name) for one in [*commands.registered_commands, *commands.registered_groups])
OUTSIDE = re.compile(
    rf"^ *(?:\$ )?(?:\w+=\S+ )*((?:rfbench (?:{NAMES})\b|python3? (?:-m |\S+\.py\b)|torchrun ).*)", re.MULTILINE
)
RECORDER = """#!{python}
import json, os, sys
with open(os.environ["RECORDED"], "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
"""
RECORDED = ("rfbench", "python", "torchrun", "make", "pip", "git")
LAUNCHERS = {"srun": '#!/bin/bash\nexec "$@"\n', "scontrol": "#!/bin/bash\necho node-1\n"}
SLURM = {"SLURM_JOB_NODELIST": "node-1", "SLURM_NODEID": "0"}


def in_blocks(page: Path, folder: Path) -> list[list[str]]:
    """Every command of the page's shell blocks, each block run by bash with recorders in the commands' place."""
    binaries, record = folder / "bin", folder / "recorded.jsonl"
    binaries.mkdir()
    record.touch()
    recorders = dict.fromkeys(RECORDED, RECORDER.format(python=sys.executable))
    for name, text in (recorders | LAUNCHERS).items():
        binary = binaries / name
        binary.write_text(text)
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, **SLURM, "PATH": f"{binaries}:/usr/bin:/bin", "RECORDED": str(record)}
    for _, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        script = re.sub(r"<(\w+)>", r"\1", block)  # a placeholder is no redirection
        subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, check=True)
    return [json.loads(line) for line in record.read_text().splitlines()]


def outside_blocks(text: str) -> list[str]:
    """Lines that are commands, and that no test would see: indented, or in a block of another language or of none."""
    return OUTSIDE.findall(BLOCK.sub("", text))


def in_sentences(page: Path) -> list[str]:
    """What stands in the text as `rfbench ...`."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return INLINE.findall(text)
