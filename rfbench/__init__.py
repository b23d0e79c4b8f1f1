"""rfbench: black-box reward finetuning of diffusion models, compared on one core under one budget.

The front door for Python, as `rfbench --help` is for the command line. Nothing heavy is imported before it is needed.

>>> import rfbench
>>> result = rfbench.run("prdp", suite="tiny-shapes", seed=0, overrides={"epochs": 3})  # doctest: +SKIP
>>> result.evaluations.filter(measure="shapes-preference")  # doctest: +SKIP
>>> rfbench.compare("results/").verdicts  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rfbench import plugins
    from rfbench.api import Result, compare, figures, load, run, sweep
    from rfbench.records.sink import Sink

__version__ = "0.1.0"
__all__ = ["Result", "Sink", "compare", "figures", "load", "plugins", "run", "sweep"]


def __getattr__(name: str) -> Any:
    if name == "plugins":
        return import_module("rfbench.plugins")
    if name == "Sink":
        return import_module("rfbench.records.sink").Sink
    if name in __all__:
        return getattr(import_module("rfbench.api"), name)
    raise AttributeError(f"module 'rfbench' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
