"""`rfbench compare`: read runs, judge them, write the files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from rfbench.errors import InputError
from rfbench.report.analysis import gains, paper
from rfbench.report.analysis.estimates import estimate, pairs
from rfbench.report.analysis.selection import select_finished
from rfbench.report.analysis.statistics import stability
from rfbench.report.analysis.verdict import Verdict, verdicts
from rfbench.report.load import Runs, load
from rfbench.report.render import headline, plots, tables, tradeoffs
from rfbench.report.render.colours import looks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = ("table", "estimates", "pairs", "hacking", "seen_unseen", "paper", "stability")


@dataclass(frozen=True)
class Plot:
    """One plot of one suite, as it was written."""

    suite: str
    name: str
    caption: str
    png: Path
    svg: Path


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. Each frame's rows are described where it is made.

    `runs`: the runs compared (`load`). `considered`: a row per readable run, whatever its status. `notes`: what was
    left out and what cannot be concluded. `stability`: a row per run (`statistics`). `estimates`, `pairs`: over seeds,
    with intervals (`estimates`). `hacking`, `seen_unseen`: where gains hold (`gains`). `paper`: beside the paper
    (`paper`). `table`: the short table (`tables`).
    """

    runs: Runs
    considered: pl.DataFrame
    notes: list[str]
    verdicts: list[Verdict]
    table: pl.DataFrame
    estimates: pl.DataFrame
    pairs: pl.DataFrame
    hacking: pl.DataFrame
    seen_unseen: pl.DataFrame
    paper: pl.DataFrame
    stability: pl.DataFrame
    plots: list[Plot] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def to_json(self) -> str:
        """Everything but the curves, as JSON: verdicts, notes, and each frame as a list of rows."""
        data = {
            "verdicts": [{"suite": v.suite, "headline": v.headline, "sentences": v.sentences} for v in self.verdicts],
            "notes": self.notes,
            **{name: getattr(self, name).to_dicts() for name in FRAMES},
            "files": [str(file) for file in self.files],
        }
        return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False)


def compare(
    folders: Sequence[Path | str],
    out: Path | str,
    allow_mixed: bool = False,
    x: str = "queries",
    html: Path | str | None = None,
) -> Comparison:
    """Compare the finished runs below `folders`; write tables and plots into `out`, and the page to `html`.

    `x` is the plots' horizontal axis: "queries", "epochs" or "seconds".
    """
    if x not in plots.X_AXES:
        raise InputError(f"--x {x} is unknown; use one of {', '.join(plots.X_AXES)}")
    everything = load(folders)
    runs, notes = select_finished(everything, allow_mixed)
    statistics = stability(runs.evals)
    estimates, paired = estimate(runs.finals, statistics), pairs(runs.finals)
    hacking = gains.reward_hacking(estimates)
    beside = paper.beside_paper(runs.records.values(), statistics)
    judged = verdicts(estimates, paired, statistics, hacking, beside)
    found = Comparison(
        runs=runs,
        considered=everything.runs,
        notes=notes,
        verdicts=judged,
        table=tables.summarise(statistics),
        estimates=estimates,
        pairs=paired,
        hacking=hacking,
        seen_unseen=gains.seen_unseen(estimates),
        paper=beside,
        stability=statistics,
    )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    found.files.extend(_write_tables(found, out))
    found.plots.extend(_write_plots(found, out, x))
    found.files.extend(path for plot in found.plots for path in (plot.png, plot.svg))
    if html is not None:
        from rfbench.report.render.page import write_page

        found.files.append(write_page(found, Path(html)))
    return found


def _write_tables(found: Comparison, out: Path) -> list[Path]:
    found.table.write_csv(out / "comparison.csv")
    text = [*(f"{verdict}\n" for verdict in found.verdicts)]
    text += [headline.to_markdown(found.estimates), tables.to_markdown(found.table)]
    text += [tables.paper_to_markdown(found.paper)] if found.paper.height else []
    (out / "comparison.md").write_text("\n".join(text), encoding="utf-8")
    files = [out / "comparison.csv", out / "comparison.md"]
    for name in ("estimates", "pairs", "stability"):
        getattr(found, name).write_csv(out / f"{name}.csv")
        files.append(out / f"{name}.csv")
    return files


def _write_plots(found: Comparison, out: Path, x: str) -> list[Plot]:
    written = []
    names = found.runs.runs["suite"].unique()
    references = paper.references(found.runs.records.values())
    styles = looks(found.considered["variant"])
    with plots.plotting():
        for suite, evals in tables.suites(found.runs.evals.sort("suite")):
            curves = paper.paper_curves(references[suite]) if suite in references else None
            estimates = found.estimates.filter(pl.col("suite") == suite)
            for name, caption, figure in _figures(evals, estimates, styles, curves, x):
                if figure is not None:
                    stem = name if len(names) == 1 else f"{name}-{_file_name(suite)}"
                    written.append(Plot(suite, name, caption, *plots.save(figure, out, stem)))
    return written


def _figures(
    evals: pl.DataFrame, estimates: pl.DataFrame, styles: plots.Styles, curves: pl.DataFrame | None, x: str
) -> Iterator[tuple[str, str, Figure | None]]:
    band = "Lines: mean over seeds; bands: one standard deviation over seeds. Dotted: the base model."
    if curves is not None and (curves.is_empty() or x == "seconds"):
        curves = None
    if curves is not None:
        band += f" Thin lines: {paper.SOURCE}."
    yield (
        "comparison",
        f"Each reward against {plots.X_AXES[x][1]}. {band}",
        plots.reward_curves(evals, styles, x, curves),
    )
    yield (
        "held-out",
        "Reward hacking: gain on rewards that were not trained against gain on the training reward, epoch by epoch; "
        "the last epoch is marked. A path that turns down while it moves right hacks the reward.",
        tradeoffs.held_out_against_trained(evals, styles),
    )
    yield (
        "seen-unseen",
        "Final gain over the base model on seen (filled) and unseen (hollow) prompts, with 95 % intervals.",
        tradeoffs.seen_against_unseen(estimates, styles),
    )
    yield (
        "kl",
        "Training reward against the KL divergence to the base model, epoch by epoch; the last epoch is marked.",
        tradeoffs.kl_against_reward(evals, styles),
    )


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
