"""What the page's curves are drawn from: the rows of `curves.mean_curves`, as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from rfbench.report.analysis.curves import COMPUTE
from rfbench.report.frames import decimals, prompt_set
from rfbench.report.render.colours import COLOURS, LOOKS, Look, looks
from rfbench.report.render.limits import of_curves
from rfbench.report.render.plots import X_AXES

DIGITS = 6  # significant digits of the page's numbers
NUMBERS = ("mean", "gain", "gain_low", "gain_high")


def chart_data(
    curves: pl.DataFrame, styles: dict[str, Look], ranking: list[str], judged: str, x: str, paper: pl.DataFrame | None
) -> dict[str, Any]:
    """Everything that the curves of one suite show; empty where no measure was evaluated twice.

    `ranking` has its algorithms, the best first, and `judged` is the measure that it goes by. The page opens with the
    horizontal axis `x`, of `plots.X_AXES`; those that no run recorded are left out. `paper` has the paper's curves
    (`paper.paper_curves`), to stand beside.
    """
    rows = curves.with_columns(COMPUTE)
    later = rows.filter(pl.col("epoch") > 0)  # before, nothing has been spent
    axes = {key: label for key, (column, label) in X_AXES.items() if later[column].is_not_null().any()}
    measures = [
        _measure(block, paper)
        for block in rows.partition_by("measure", maintain_order=True)
        if block["epoch"].n_unique() > 1 and block["gain"].is_not_null().any()
    ]
    if not measures:
        return {}
    judged = judged if judged in [measure["name"] for measure in measures] else measures[0]["name"]
    return {
        "axes": [{"key": key, "label": label} for key, label in axes.items()],
        "x": x if x in axes else "epochs",
        "y": judged,
        "frontier": _frontier([measure["name"] for measure in measures], judged),
        "methods": [_method(name, styles[name]) for name in ranking],
        "measures": measures,
    }


def _method(name: str, look: Look) -> dict[str, str]:
    index = LOOKS.index(look)
    return {"name": name, "colour": f"k{index % len(COLOURS)}", "symbol": f"mark-{index}", "dash": dashes(look)}


def dashes(look: Look) -> str:
    """The line's dashes as SVG has them, for a line two pixels wide."""
    return "" if look.line == "-" else " ".join(f"{2 * length:g}" for length in look.line[1])


def _frontier(names: list[str], judged: str) -> str:
    """The measure that gains are shown against: the KL divergence where there is one, else the next."""
    return "kl" if "kl" in names else next((name for name in names if name != judged), judged)


def _measure(rows: pl.DataFrame, paper: pl.DataFrame | None) -> dict[str, Any]:
    first = rows.row(0, named=True)
    beside = paper if first["role"] == "training" and paper is not None else pl.DataFrame()
    return {
        "name": first["measure"],
        "role": first["role"],
        "unit": first["unit"] or "",
        "digits": decimals([rows["gain"]]),
        "sets": list(_sets(rows, beside)),
    }


def _sets(rows: pl.DataFrame, paper: pl.DataFrame) -> Iterator[dict[str, Any]]:
    for block in rows.partition_by("evaluation_set", maintain_order=True):
        limits = of_curves(block)
        curves = {
            str(name): {"epochs": curve["epoch"].to_list()}
            | {key: _numbers(curve[column]) for key, (column, _) in X_AXES.items() if key != "epochs"}
            | {name: _numbers(curve[name]) for name in NUMBERS}
            for (name,), curve in block.group_by("variant", maintain_order=True)
        }
        yield {
            "name": block["evaluation_set"][0],
            "label": prompt_set(block.row(0, named=True)),
            "limits": [limits.low, limits.high],
            "whole": list(limits.whole),
            "outside": list(limits.outside),
            "curves": curves,
            "paper": _paper(paper) if block["seen"][0] and paper.height else [],
        }


def _paper(curves: pl.DataFrame) -> list[dict[str, Any]]:
    styles = looks(curves["variant"])
    return [
        {"name": name, "colour": _method(str(name), styles[str(name)])["colour"], "epochs": curve["epoch"].to_list()}
        | {"queries": _numbers(curve["reward_queries"]), "gain": _numbers(curve["gain"])}
        for (name,), curve in curves.group_by("variant", maintain_order=True)
    ]


def _numbers(values: pl.Series) -> list[float | None]:
    return [None if value is None else float(f"{value:.{DIGITS}g}") for value in values]
