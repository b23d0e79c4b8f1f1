"""The pages of docs/ as a site: `make docs`."""

from __future__ import annotations

import re
from importlib import metadata

from sphinx.application import Sphinx

project = "rfbench"
author = "the authors of rfbench"
release = metadata.version("rfbench")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_show_copyright = False
html_title = f"rfbench {release}"
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath", "deflist"]
default_role = "code"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_ivar = True
exclude_patterns = ["build"]

OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+(?:benchmarks|results|rfbench|tests|algorithms/\w+\.py)[^)\s]*)\)")


def name_files_outside(app: Sphinx, page: str, source: list[str]) -> None:
    """A link to a file of the repository that is no page becomes its path: the site may be read without the sources."""
    source[0] = OUTSIDE.sub(lambda found: f"{found[1]} (`{found[2].replace('../', '')}`)", source[0])


def show_formulas(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """A block that is indented after a colon is shown as it stands."""
    for above, (line, blank, below) in enumerate(zip(lines, lines[1:], lines[2:], strict=False)):
        indent = len(line) - len(line.lstrip())
        if line.endswith(":") and not line.endswith("::") and not blank and below.startswith(" " * (indent + 4)):
            lines[above] += ":"


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", show_formulas, priority=100)
    app.connect("source-read", name_files_outside)
