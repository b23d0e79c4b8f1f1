"""No algorithm knows which process it runs on, nor does the core ask."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMES = re.compile(r"flow|epsilon|diffusion|velocity_|alphas_cumprod|alpha_bar|prediction_type", re.IGNORECASE)
ALGORITHMS = sorted((ROOT / "algorithms").glob("*.py"))
CORE = sorted((ROOT / "rfbench" / "core").glob("*.py"))


def words(path: Path) -> set[str]:
    """What a file's code names: variables, attributes, imports and strings, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, owners) and node.body
             if isinstance(node.body[0], ast.Expr)}  # fmt: skip
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            found.add(node.value)
    return found


@pytest.mark.parametrize("path", [*ALGORITHMS, *CORE], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_code_names_a_process(path: Path) -> None:
    assert {word for word in words(path) if NAMES.search(word)} == set()
