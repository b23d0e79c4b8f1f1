"""The tables of the gradient probe: each estimator's cosines, and what one has over another on the same batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from rfbench.report.analysis.intervals import Interval, mean
from rfbench.report.render.tables import markdown_row
from rfbench_benchmarks.gradient_probe import references_text

BATCH, REMOVED = "batch mean", "base model's means removed, batch mean"
GROUP, STD, PRDP = "group mean", "group mean and std", "PRDP's coefficients"
PAIRS = (  # of estimators on the same images: what changes, images per prompt, from, to
    ("each prompt's mean under the base model removed", 1, BATCH, REMOVED),
    ("the group's mean for the batch's", 8, BATCH, GROUP),
    ("the group's std", 8, GROUP, STD),
)


def probe_tables(folder: Path) -> dict[str, str]:
    """Of every probe in ``folder``, by the name of its place on the page."""
    found: dict[str, str] = {}
    for place in sorted(path.parent for path in folder.glob("*/probe.json")):
        result = json.loads((place / "probe.json").read_text(encoding="utf-8"))
        rows = json.loads((place / "batches.json").read_text(encoding="utf-8"))
        found[f"probe {place.name}"] = _estimators(result, rows)
        found[f"probe {place.name} pairs"] = _pairs(rows)
    return found


def _estimators(result: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    lines = [["estimator", "images per prompt", "cosine in Adam's coordinates", "plain cosine"]]
    lines.append(["---", "---:", "---:", "---:"])
    for estimator in result["estimators"]:
        name, size = estimator["estimator"], estimator["images_per_prompt"]
        cells = [_interval([list(_of(rows, name, size, c).values())]) for c in ("adam", "plain")]
        lines.append([name, str(size), *cells])
    return "\n".join([*map(markdown_row, lines), "", references_text(result)])


def _pairs(rows: list[dict[str, Any]]) -> str:
    lines = [["what changes, on the same images", "images per prompt", "cosine in Adam's coordinates", "plain cosine"]]
    lines.append(["---", "---:", "---:", "---:"])
    for what, size, first, second in PAIRS:
        cells = []
        for coordinates in ("adam", "plain"):
            a, b = (_of(rows, name, size, coordinates) for name in (first, second))
            cells.append(_interval([[b[batch] - a[batch] for batch in a]]))
        lines.append([what, str(size), *cells])
    return "\n".join(map(markdown_row, lines))


def _of(rows: list[dict[str, Any]], estimator: str, size: int, coordinates: str) -> dict[int, float]:
    """An estimator's cosine on each batch."""
    mine = [r for r in rows if r["estimator"] == estimator and r["images_per_prompt"] == size]
    return {row["batch"]: row[coordinates] for row in mine}


def _interval(values: list[list[float]]) -> str:
    """Mean over batches with its t interval, in bold where that is off 0."""
    found: Interval = mean(np.array(values).T).interval()
    assert found.low is not None
    assert found.high is not None
    text = f"{found.estimate:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    return f"**{text}**" if found.low > 0 or found.high < 0 else text
