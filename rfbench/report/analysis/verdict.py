"""The answer in plain words, per suite: who wins, by how much, is it noise, who collapsed, does it hold elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from rfbench.report.analysis.paper import BASE
from rfbench.report.render.tables import decimals, prompt_set, suites

Row = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """A headline and the sentences that support or qualify it."""

    suite: str
    headline: str
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.suite}: {self.headline}", *(f"  - {sentence}" for sentence in self.sentences)])


@dataclass(frozen=True)
class Evidence:
    """The frames that a verdict rests on: those of `Comparison`, for one suite."""

    estimates: pl.DataFrame
    pairs: pl.DataFrame
    stability: pl.DataFrame
    hacking: pl.DataFrame
    paper: pl.DataFrame


def verdicts(estimates: pl.DataFrame, *others: pl.DataFrame) -> list[Verdict]:
    """One verdict per suite; the frames in the order of `Evidence`."""
    return [
        _verdict(suite, Evidence(rows, *(frame.filter(pl.col("suite") == suite) for frame in others)))
        for suite, rows in suites(estimates)
    ]


def _verdict(suite: str, evidence: Evidence) -> Verdict:
    training = evidence.estimates.filter(pl.col("role") == "training")
    if training.is_empty():
        return Verdict(suite, "No training reward was evaluated.", ())
    measure, prompts = training.row(0, named=True)["measure"], training.row(0, named=True)["evaluation_set"]
    panel = (pl.col("measure") == measure) & (pl.col("evaluation_set") == prompts)
    finals = training.filter(panel, pl.col("statistic") == "final").sort(
        "estimate", "variant", descending=[True, False]
    )
    digits = decimals([finals["estimate"]])
    place = f"{measure} on {prompts} prompts"
    headline = _headline(finals, training.filter(panel), evidence.pairs.filter(panel), place, digits)
    sentences = [
        *_leads(finals, evidence.pairs.filter(panel), digits),
        *_other_prompts(finals, evidence.pairs, measure, prompts, digits),
        *_collapses(evidence.stability.filter(panel), digits),
        *_held_out(evidence.hacking.filter(pl.col("evaluation_set") == prompts)),
        *_speed(training.filter(panel)),
        *_paper(evidence.paper, digits),
    ]
    return Verdict(suite, headline, tuple(sentences))


def _headline(finals: pl.DataFrame, panel: pl.DataFrame, pairs: pl.DataFrame, place: str, digits: int) -> str:
    ranked = finals["variant"].to_list()
    first = finals.row(0, named=True)
    gain = panel.filter(pl.col("variant") == ranked[0], pl.col("statistic") == "gain").row(0, named=True)
    seeds = _seeds(finals)
    if len(ranked) == 1:
        return f"{ranked[0]} changes {place} by {_signed(gain, digits)} ({seeds}); there is nothing to compare it with."
    against = {row["other"]: row for row in pairs.filter(pl.col("variant") == ranked[0]).iter_rows(named=True)}
    final = f"{first['estimate']:.{digits}f}"
    if any(row["low"] is None for row in against.values()):
        return f"{ranked[0]} ends highest, {final} in {place}, but with one seed this cannot be told from noise."
    level = [name for name in ranked[1:] if against[name]["low"] <= 0]
    if level:
        return f"No clear winner: {_and([ranked[0], *level])} cannot be told apart in {place} ({seeds})."
    lead = _lead(against[ranked[1]], digits)
    if gain["low"] is not None and gain["low"] <= 0:
        return f"{ranked[0]} ends highest in {place}, {lead} above {ranked[1]}, but not above the base model ({seeds})."
    return f"{ranked[0]} wins: it ends at {final} in {place}, {lead} above {ranked[1]}, the next best ({seeds})."


def _leads(finals: pl.DataFrame, pairs: pl.DataFrame, digits: int) -> list[str]:
    """How far the first is above every other; nothing with one seed, or where the headline says it of the only one."""
    first = finals["variant"][0]
    rows = pairs.filter(pl.col("variant") == first).to_dicts()
    if any(row["low"] is None for row in rows) or (len(rows) < 2 and all(row["low"] > 0 for row in rows)):
        return []
    leads = [f"{row['other']} {_lead(row, digits)}{'' if row['low'] > 0 else ' (may be noise)'}" for row in rows]
    return [f"The lead of {first} over the others: {', '.join(leads)}."]


def _other_prompts(finals: pl.DataFrame, pairs: pl.DataFrame, measure: str, prompts: str, digits: int) -> list[str]:
    """How the lead over the runner-up fares on every other prompt set."""
    if finals.height < 2:
        return []
    first, second = finals["variant"][0], finals["variant"][1]
    elsewhere = pairs.filter(
        pl.col("measure") == measure,
        pl.col("evaluation_set") != prompts,
        pl.col("variant").is_in([first, second]) & pl.col("other").is_in([first, second]),
    )
    holds: list[str] = []
    sentences = []
    for row in elsewhere.iter_rows(named=True):
        if row["difference"] == 0:
            sentences.append(f"On {prompt_set(row)} prompts {row['variant']} and {row['other']} end equal.")
            continue
        lead = _lead(row, digits)
        noise = row["low"] is None or row["low"] <= 0
        if row["variant"] == first and not noise:
            holds.append(f"{lead} on {prompt_set(row)}")
        else:
            doubt = ", which cannot be told from noise" if noise else ""
            sentences.append(
                f"On {prompt_set(row)} prompts {row['variant']} is ahead of {row['other']}: {lead}{doubt}."
            )
    if holds:
        sentences.insert(
            0, f"The lead over {second} holds on {_count(len(holds), 'other prompt set')}: {', '.join(holds)}."
        )
    return sentences


def _collapses(stability: pl.DataFrame, digits: int) -> list[str]:
    sentences, steady = [], []
    for (algorithm,), runs in stability.sort("variant").group_by("variant", maintain_order=True):
        epochs = runs["collapse_epoch"].drop_nulls()
        if epochs.is_empty():
            steady.append(str(algorithm))
            continue
        earliest, latest, worst = min(epochs), max(epochs), max(runs["drawdown"])
        when = f"epoch {earliest}" if earliest == latest else f"epochs {earliest} to {latest}"
        sentences.append(
            f"{algorithm} collapsed in {len(epochs)} of {_count(runs.height, 'seed')}, at {when}; "
            f"its largest drop from the best was {worst:.{digits}f}."
        )
    if not sentences:
        return [f"No run of any algorithm collapsed ({_count(stability.height, 'run')})."]
    if steady:
        sentences.append(f"{_and(steady)} did not collapse in any seed.")
    return sentences


def _held_out(hacking: pl.DataFrame) -> list[str]:
    texts = {
        "hacked": "Reward hacking: {measure}, which was not trained, fell while the training reward rose: {changes}.",
        "carries over": "{measure}, which was not trained, rose too: {changes}.",
        "cannot be told": "{measure}, which was not trained, cannot be told from unchanged: {changes}.",
    }
    sentences = []
    for block in hacking.partition_by("measure", maintain_order=True):
        digits = min(decimals([block["estimate"]]), 4)
        for verdict, text in texts.items():
            rows = block.filter(verdict=verdict).sort("estimate", descending=True).iter_rows(named=True)
            changes = ", ".join(f"{row['variant']} {_signed(row, digits)}" for row in rows)
            sentences += [text.format(measure=block["measure"][0], changes=changes)] if changes else []
    return sentences


def _speed(panel: pl.DataFrame) -> list[str]:
    reached = panel.filter(pl.col("statistic") == "queries_to_threshold").sort("estimate", "variant")
    seeds = dict(panel.filter(pl.col("statistic") == "final").select("variant", "seeds").iter_rows())
    parts = []
    for row in reached.iter_rows(named=True):
        some = "" if row["seeds"] == seeds[row["variant"]] else f" (in {row['seeds']} of {seeds[row['variant']]} seeds)"
        parts.append(f"{row['variant']} {row['estimate']:,.0f}{some}")
    never = sorted(seeds.keys() - set(reached["variant"]))
    if not parts:
        return []
    text = f"Reward queries to half of the best final gain: {', '.join(parts)}"
    return [f"{text}; never: {', '.join(never)}." if never else f"{text}."]


def _paper(paper: pl.DataFrame, digits: int) -> list[str]:
    base = paper.filter(pl.col("method") == BASE, pl.col("measured").is_not_null())
    gaps = [
        f"{row['measured']:.{digits}f} against {row['paper']:.{digits}f} ({row['gap']:+.{digits}f})"
        f" on {prompt_set(row)}"
        for row in base.iter_rows(named=True)
    ]
    return [f"The base model, here against the paper: {', '.join(gaps)}."] if gaps else []


def _signed(row: Row, digits: int) -> str:
    """'+0.68 [0.55, 0.82]'."""
    value = f"{row['estimate']:+.{digits}f}"
    return value if row["low"] is None else f"{value} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def _lead(pair: Row, digits: int) -> str:
    return _signed(pair | {"estimate": pair["difference"]}, digits)


def _seeds(finals: pl.DataFrame) -> str:
    counts = finals["seeds"]
    if counts.n_unique() == 1:
        return f"{_count(counts[0], 'seed')} each" if len(counts) > 1 else _count(counts[0], "seed")
    return ", ".join(f"{row['variant']}: {_count(row['seeds'], 'seed')}" for row in finals.iter_rows(named=True))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
