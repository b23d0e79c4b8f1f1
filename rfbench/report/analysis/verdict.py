"""The answer in plain words, per suite: who wins, by how much, is it noise, at what cost, does it hold elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from rfbench.report.analysis.contrasts import between, contenders, judged, ranked, turned
from rfbench.report.analysis.curves import COMPUTE, COSTS
from rfbench.report.analysis.pairs import LOWER_IS_BETTER
from rfbench.report.analysis.paper import BASE
from rfbench.report.frames import decimals, prompt_set, suites, thousands

Row = dict[str, Any]
UNEQUAL_COMPUTE = 1.1  # ratio of the compute of two algorithms from which on equal compute is worth a word


@dataclass(frozen=True)
class Verdict:
    """A headline and the sentences that support or qualify it; `short` is the headline in a few words."""

    suite: str
    headline: str
    sentences: tuple[str, ...]
    short: str

    def __str__(self) -> str:
        return "\n".join([f"{self.suite}: {self.headline}", *(f"  - {sentence}" for sentence in self.sentences)])


@dataclass(frozen=True)
class Evidence:
    """The frames that verdicts rest on: those of `Comparison`, by their names."""

    estimates: pl.DataFrame
    pairs: pl.DataFrame
    contrasts: pl.DataFrame
    curves: pl.DataFrame
    stability: pl.DataFrame
    hacking: pl.DataFrame
    paper: pl.DataFrame

    def of(self, suite: str) -> Evidence:
        """The rows of one suite."""
        return Evidence(**{name: frame.filter(pl.col("suite") == suite) for name, frame in vars(self).items()})


def verdicts(evidence: Evidence) -> list[Verdict]:
    """One verdict per suite."""
    return [_verdict(suite, evidence.of(suite)) for suite, _ in suites(evidence.estimates)]


def _verdict(suite: str, evidence: Evidence) -> Verdict:
    rows = judged(evidence.estimates)
    if rows.is_empty():
        return Verdict(suite, "No training reward was evaluated.", (), "nothing to judge by")
    finals = contenders(rows)
    place = finals.row(0, named=True)
    panel = (pl.col("measure") == place["measure"]) & (pl.col("evaluation_set") == place["evaluation_set"])
    same_set = pl.col("evaluation_set") == place["evaluation_set"]
    spec = ".3g" if place["measure"] in LOWER_IS_BETTER else f".{decimals([finals['estimate']])}f"
    training = evidence.estimates.filter(same_set, pl.col("role") == "training")
    trained = pl.col("measure").is_in(training["measure"].implode()) & same_set
    sentences = [
        *_leads(evidence.contrasts, spec),
        *_single(ranked(rows), finals, spec),
        *_costs(finals, evidence.curves.filter(panel)),
        *_equal_compute(finals, evidence.pairs.filter(panel), evidence.curves.filter(panel), spec),
        *_other_prompts(finals, evidence.pairs.filter(pl.col("measure") == place["measure"], ~same_set), spec),
        *_collapses(evidence.stability.filter(trained), spec),
        *_held_out(evidence.hacking.filter(same_set)),
        *_speed(training),
        *_paper(evidence.paper, spec),
    ]
    headline, short = _headline(finals, rows, evidence.contrasts, spec)
    return Verdict(suite, headline, tuple(sentences), short)


def _headline(finals: pl.DataFrame, panel: pl.DataFrame, contrasts: pl.DataFrame, spec: str) -> tuple[str, str]:
    """The headline, and the same in a few words."""
    first = finals.row(0, named=True)
    name, place = first["variant"], f"{first['measure']} on {first['evaluation_set']} prompts"
    best, beyond = _words(first["measure"])
    gain = panel.filter(pl.col("variant") == name, pl.col("statistic") == "gain").row(0, named=True)
    seeds = _seeds(finals)
    if finals.height == 1:
        changed = f"{name} changes {place} by {_signed(gain, spec)} ({seeds}); there is nothing to compare it with."
        return changed, f"{name} alone"
    final = f"{first['estimate']:{spec}}"
    if contrasts["told"].null_count():
        doubt = "with one seed this cannot be told from noise"
        return f"{name} ends {best}, {final} in {place}, but {doubt}.", f"{name} ends {best}; it may be noise"
    level = contrasts.filter(~pl.col("told"))["other"].to_list()
    if level:
        tied = f"{_and([name, *level])} cannot be told apart in {place} ({seeds})."
        return f"No clear winner: {tied}", "no clear winner"
    second = contrasts.row(0, named=True)
    lead = f"{_lead(second, spec)} {beyond} {second['other']}"
    if gain["low"] is not None and not _improved(gain):
        start = f"not {beyond} the base model"
        return f"{name} ends {best} in {place}, {lead}, but {start} ({seeds}).", f"{name} ends {best}, but {start}"
    return f"{name} wins: it ends at {final} in {place}, {lead}, the next best ({seeds}).", f"{name} wins"


def _words(measure: str) -> tuple[str, str]:
    return ("lowest", "below") if measure in LOWER_IS_BETTER else ("highest", "above")


def _improved(gain: Row) -> bool:
    return gain["high"] < 0 if gain["measure"] in LOWER_IS_BETTER else gain["low"] > 0


def _leads(contrasts: pl.DataFrame, spec: str) -> list[str]:
    """How far the first is ahead of each; nothing with one seed, or where the headline says it of the only one."""
    if contrasts["told"].null_count() or (contrasts.height < 2 and contrasts["told"].all()):
        return []
    leads = [
        f"{row['other']} {_lead(row, spec)}{'' if row['told'] else ' (may be noise)'}"
        for row in contrasts.iter_rows(named=True)
    ]
    corrected = f", in intervals corrected for {contrasts.height} comparisons" if contrasts.height > 1 else ""
    return [f"The lead of {contrasts['variant'][0]} over the others{corrected}: {', '.join(leads)}."]


def _single(order: pl.DataFrame, finals: pl.DataFrame, spec: str) -> list[str]:
    """The runs that the headline leaves out, since one seed has no spread."""
    alone = order.join(finals, on="variant", how="anti", maintain_order="left")
    texts = [f"{row['variant']} {row['estimate']:{spec}}" for row in alone.iter_rows(named=True)]
    return [f"Of one seed each, and so not compared: {', '.join(texts)}."] * bool(texts)


def _costs(finals: pl.DataFrame, curves: pl.DataFrame) -> list[str]:
    """What a run of the first two cost; nothing where no run recorded it."""
    texts = []
    for name in finals["variant"][:2]:
        spent = curves.filter(pl.col("variant") == name).row(-1, named=True)
        if any(spent[cost] is None for cost in COSTS):
            continue
        passes = f"{thousands(spent['denoiser_forwards'])} forwards, {thousands(spent['denoiser_backwards'])} backwards"
        texts.append(
            f"{name} {passes}, {thousands(spent['optimizer_steps'])} optimizer steps, {spent['seconds']:,.0f} s"
        )
    return [f"Cost of a run: {'; '.join(texts)}."] * bool(texts)


def _equal_compute(finals: pl.DataFrame, pairs: pl.DataFrame, curves: pl.DataFrame, spec: str) -> list[str]:
    """Against those that spend less or more of the denoiser's time: who is ahead when both have spent the same."""
    if finals.height < 2:
        return []
    ends = curves.group_by("variant").agg(pl.all().last())
    total = dict(ends.select("variant", COMPUTE).iter_rows())
    first = finals["variant"][0]
    texts: dict[str, list[str]] = {"ahead of": [], "behind": [], "level with": []}
    for other in finals["variant"][1:]:
        row = between(pairs, first, other)
        if row["equal_compute"] and max(total[first], total[other]) > UNEQUAL_COMPUTE * row["equal_compute"]:
            equal = {"difference": row["equal_difference"], "low": row["equal_low"], "high": row["equal_high"]}
            lead = _ahead(row | equal)
            told = lead["low"] is not None and (lead["low"] > 0 or lead["high"] < 0)
            place = "level with" if not told else "ahead of" if lead["lead"] > 0 else "behind"
            texts[place].append(f"{other} ({_lead(lead, spec)})")
    found = [f"{place} {', '.join(others)}" for place, others in texts.items() if others]
    return [f"At equal compute, a backward pass counted as two forward ones, {first} is {'; '.join(found)}."] * bool(
        found
    )


def _ahead(row: Row) -> Row:
    """A row of `pairs` as a lead: positive where its first algorithm is the better one."""
    found = turned(row, "difference", "low", "high") if row["measure"] in LOWER_IS_BETTER else row
    return {"lead": found["difference"], "low": found["low"], "high": found["high"]}


def _other_prompts(finals: pl.DataFrame, elsewhere: pl.DataFrame, spec: str) -> list[str]:
    """How the lead over the runner-up fares on every other prompt set."""
    if finals.height < 2:
        return []
    first, second = finals["variant"][0], finals["variant"][1]
    holds: list[str] = []
    sentences = []
    both = elsewhere.filter(pl.col("variant").is_in([first, second]) & pl.col("other").is_in([first, second]))
    for row in both.iter_rows(named=True):
        if row["difference"] == 0:
            sentences.append(f"On {prompt_set(row)} prompts {row['variant']} and {row['other']} end equal.")
            continue
        ahead = _ahead(row)
        lead = _lead(ahead, spec)
        noise = ahead["low"] is None or ahead["low"] <= 0
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


def _collapses(stability: pl.DataFrame, spec: str) -> list[str]:
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
            f"its largest drop from the best was {worst:{spec}}."
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
        spec = f".{min(decimals([block['estimate']]), 4)}f"
        for verdict, text in texts.items():
            rows = block.filter(verdict=verdict).sort("estimate", descending=True).iter_rows(named=True)
            changes = ", ".join(f"{row['variant']} {_signed(row, spec)}" for row in rows)
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


def _paper(paper: pl.DataFrame, spec: str) -> list[str]:
    base = paper.filter(pl.col("method") == BASE, pl.col("measured").is_not_null())
    gaps = [
        f"{row['measured']:{spec}} against {row['paper']:{spec}} ({row['gap']:+{spec}}) on {prompt_set(row)}"
        for row in base.iter_rows(named=True)
    ]
    return [f"The base model, here against the paper: {', '.join(gaps)}."] if gaps else []


def _signed(row: Row, spec: str) -> str:
    """'+0.68 [0.55, 0.82]', in a number format such as '.2f'."""
    value = f"{row['estimate']:+{spec}}"
    return value if row["low"] is None else f"{value} [{row['low']:{spec}}, {row['high']:{spec}}]"


def _lead(row: Row, spec: str) -> str:
    return _signed(row | {"estimate": row["lead"]}, spec)


def _seeds(finals: pl.DataFrame) -> str:
    counts = finals["seeds"]
    if counts.n_unique() == 1:
        return f"{_count(counts[0], 'seed')} each" if len(counts) > 1 else _count(counts[0], "seed")
    return ", ".join(f"{row['variant']}: {_count(row['seeds'], 'seed')}" for row in finals.iter_rows(named=True))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
