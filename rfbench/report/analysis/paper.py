"""The PRDP paper's numbers beside ours, for suites that name what they reproduce.

A suite's `[paper]` table says which experiment it repeats: `suite` ("small" or "large") and `reward` (the reward that
was trained on; "multi" for the weighted sum of Table 3, "aesthetic" for the ablation of Figure 10).
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import resources

import polars as pl

from rfbench.records.format import RunRecord
from rfbench.report.frames import order

SOURCE = "Deng et al., PRDP, CVPR 2024 (arXiv 2402.08714v2)"
BASE = "sd-v1.4"
MEASURES = {"multi": "weighted-sum"}  # the paper's name of a reward: the plugin's, where they differ
QUERIES_PER_EPOCH = 512
COLUMNS = {
    "suite": pl.String(),
    "measure": pl.String(),
    "role": pl.String(),
    "evaluation_set": pl.String(),
    "seen": pl.Boolean(),
    "method": pl.String(),
    "paper": pl.Float64(),
    "measured": pl.Float64(),
    "gap": pl.Float64(),
}


def beside_paper(records: Collection[RunRecord], stability: pl.DataFrame) -> pl.DataFrame:
    """A row per number of the paper that has a counterpart in the runs: paper, measured, gap = measured − paper.

    The base model (measured: the median first evaluation) stands first in each prompt set: it shows how well the set-up
    is calibrated before anything is trained. A method of the paper that was not run has no measured value.
    """
    parts = [_rows(suite, reference, stability) for suite, reference in references(records).items()]
    frame = pl.concat(parts) if parts else pl.DataFrame(schema=COLUMNS)
    return order(frame.rename({"method": "variant"}), pl.col("variant") != BASE).rename({"variant": "method"})


def references(records: Collection[RunRecord]) -> dict[str, dict[str, str]]:
    """suite name -> its [paper] table, for the suites that have one."""
    found = {record.suite["name"]: record.suite.get("paper") for record in records}
    return {
        suite: table
        for suite, table in found.items()
        if isinstance(table, dict) and {"suite", "reward"} <= table.keys()
    }


def paper_curves(reference: dict[str, str]) -> pl.DataFrame:
    """The paper's HPSv2 training curves: variant, epoch, reward_queries, mean, gain. Empty for any other reward."""
    curves = _read("prdp_poster_curves.csv").filter(pl.col("suite") == reference["suite"])
    if reference["reward"] != "hpsv2":
        curves = curves.clear()
    queries = (pl.col("epoch") * QUERIES_PER_EPOCH).alias("reward_queries")
    mean = pl.col("hpsv2")
    gain = (mean - mean.sort_by("epoch").first().over("algorithm")).alias("gain")
    return curves.select(pl.col("algorithm").alias("variant"), "epoch", queries, mean.alias("mean"), gain)


def _rows(suite: str, reference: dict[str, str], stability: pl.DataFrame) -> pl.DataFrame:
    ours = stability.filter(pl.col("suite") == suite)
    panels = ours.select("suite", "measure", "role", "evaluation_set", "seen").unique()
    paper = _paper_values(reference, panels)
    base = ours.group_by("measure", "evaluation_set").agg(
        pl.col("start").median().alias("measured"), pl.lit(BASE).alias("method")
    )
    final = ours.group_by("measure", "evaluation_set", pl.col("variant").alias("method")).agg(
        pl.col("final").mean().alias("measured")
    )
    measured = pl.concat([base.select(["measure", "evaluation_set", "method", "measured"]), final])
    rows = panels.join(paper, on=["measure", "evaluation_set"]).join(
        measured, on=["measure", "evaluation_set", "method"], how="left"
    )
    return rows.with_columns((pl.col("measured") - pl.col("paper")).alias("gap")).select(*COLUMNS)


def base_row(suite: str, reward: str) -> dict[tuple[str, str], float]:
    """The untouched base model in the paper: (prompt set, measure) -> value, for a suite's `[paper]` table.

    What a set-up is calibrated against: https://arxiv.org/abs/2402.08714v2, Tables 1-3 and Figure 10.
    """
    rows = _experiment(suite, reward).filter(method=BASE)
    return {
        (prompts, measure): value
        for prompts, measure, value in rows.select("evaluation_set", "measure", "paper").rows()
    }


def _experiment(suite: str, reward: str) -> pl.DataFrame:
    """measure (by our names), evaluation_set, seen, method, paper: what the paper reports of one experiment."""
    table = {"multi": "3", "aesthetic": "fig10"}.get(reward, "1" if suite == "small" else "2")
    values = _read("prdp_results.csv").filter(pl.col("table") == table)
    if table in ("1", "2"):
        values = values.filter(pl.col("reward") == reward)
    return values.select(
        pl.col("reward").replace(MEASURES).alias("measure"),
        pl.col("prompt_set").alias("evaluation_set"),
        "seen",
        "method",
        pl.col("value").alias("paper"),
    )


def _paper_values(reference: dict[str, str], panels: pl.DataFrame) -> pl.DataFrame:
    """measure, evaluation_set (by our names), method, paper."""
    values = _experiment(reference["suite"], reference["reward"])
    ours, theirs = _only_seen(panels), _only_seen(values)
    if ours and theirs and theirs not in panels["evaluation_set"]:
        values = values.with_columns(pl.col("evaluation_set").replace(theirs, ours))
    return values.drop("seen")


def _only_seen(frame: pl.DataFrame) -> str | None:
    """The one prompt set that was seen in training: the paper's and ours mean the same, whatever they are called."""
    seen = frame.filter(pl.col("seen"))["evaluation_set"].unique()
    return seen[0] if len(seen) == 1 else None


def _read(name: str) -> pl.DataFrame:
    text = (resources.files("rfbench.report.analysis") / "data" / name).read_bytes()
    frame = pl.read_csv(text, comment_prefix="#", schema_overrides={"table": pl.String})
    return frame.with_columns(pl.col("seen") == "yes") if "seen" in frame.columns else frame
