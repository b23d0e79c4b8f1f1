"""What a reader must know beside the figures: who failed, who was left out, what cannot be concluded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from rfbench.records.format import RunRecord
from rfbench.records.protocol import sampler_changes
from rfbench.report.load import Runs

MOST_DETAILS = 40


@dataclass(frozen=True)
class Notes:
    """What a reader must know beside the figures: summaries, which are never cut off, and details run by run."""

    summaries: tuple[str, ...] = ()
    details: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        yield from self.summaries
        yield from self.details

    def shown(self, most: int = MOST_DETAILS) -> list[str]:
        """The summaries, then at most `most` details and how many more there are."""
        more = len(self.details) - most
        return [*self.summaries, *self.details[:most], *([f"… and {more} more"] if more > 0 else [])]


def lost_runs(runs: pl.DataFrame, lacks: dict[str, list[str]]) -> Iterator[str]:
    """A line per algorithm and suite of which runs failed or are not whole."""
    for (suite, variant), group in runs.sort("suite", "variant").group_by("suite", "variant", maintain_order=True):
        failed = group.filter(pl.col("status") == "failed").height
        torn = sum(bool(lacks.get(name)) for name in group["run"])
        counted = group.filter(pl.col("status") == "finished").height - torn
        for count, what in ((failed, "failed"), (torn, "lack evaluations")):
            if count:
                rest = "its figures come from the others alone" if counted else "it has no figures"
                yield f"{suite}: {count} of {group.height} runs of {variant} {what}; {rest}"


def mixed_code(runs: Runs, kept: pl.DataFrame) -> Iterator[str]:
    """Algorithms whose seeds come from several commits of rfbench or versions of packages; each is named once."""
    for (suite,), of_suite in kept.group_by("suite", maintain_order=True):
        mixtures: dict[str, list[str]] = {}
        for (variant,), group in of_suite.group_by("variant", maintain_order=True):
            mixture = _mixture({seed: runs.records[name] for name, seed in group.select("run", "seed").iter_rows()})
            if mixture:
                mixtures.setdefault(mixture, []).append(str(variant))
        for mixture, variants in mixtures.items():
            yield f"{suite}: the seeds of {', '.join(variants)} come from {mixture}"


def _mixture(seeds: dict[int, RunRecord]) -> str:
    """'2 commits of rfbench (20d3315: seeds 0, 1; 08cf622: seed 3)', of some seeds' records; empty for one code."""
    versions = {seed: record.versions for seed, record in seeds.items()}
    sources = {"commits of rfbench": {s: str(r.git_commit or "unknown")[:7] for s, r in seeds.items()}}
    for package in sorted({package for table in versions.values() for package in table}):
        sources[f"versions of {package}"] = {s: str(table.get(package, "unknown")) for s, table in versions.items()}
    differing = {what: values for what, values in sources.items() if len(set(values.values())) > 1}
    return ", ".join(f"{len(set(v.values()))} {what} ({_by_value(v)})" for what, v in differing.items())


def _by_value(values: dict[int, str]) -> str:
    """'20d3315: seeds 0, 1; 08cf622: seed 3'."""
    seeds: dict[str, list[int]] = {}
    for seed, value in sorted(values.items()):
        seeds.setdefault(value, []).append(seed)
    return "; ".join(f"{value}: seed{'s' * (len(of) > 1)} {', '.join(map(str, of))}" for value, of in seeds.items())


def mixed_devices(runs: Runs, kept: pl.DataFrame) -> Iterator[str]:
    """A line per suite whose runs were made on different devices, and by whom on which."""
    for (suite,), of_suite in kept.group_by("suite", maintain_order=True):
        made_on: dict[str, list[str]] = {}
        for name, variant in of_suite.select("run", "variant").iter_rows():
            variants = made_on.setdefault(runs.records[name].device, [])
            if variant not in variants:
                variants.append(variant)
        if len(made_on) > 1:
            listed = "; ".join(f"{device}: {', '.join(variants)}" for device, variants in made_on.items())
            yield f"{suite}: seconds do not compare, since runs come from {len(made_on)} devices ({listed})"


def equal_seeds(runs: Runs, kept: pl.DataFrame) -> Iterator[str]:
    """A line for seeds of one algorithm whose evaluations agree to the last digit, beyond the base model's."""
    trained = runs.evals.lazy().filter(pl.col("epoch") > 0).sort("evaluation_set", "measure", "epoch")
    of_runs = trained.group_by("run", maintain_order=True).agg("mean").collect()
    means = {name: tuple(values) for name, values in of_runs.iter_rows()}
    for (suite, variant), group in kept.group_by("suite", "variant", maintain_order=True):
        seeds: dict[tuple[float, ...], list[int]] = {}
        for name, seed in group.select("run", "seed").iter_rows():
            seeds.setdefault(means.get(name, ()), []).append(seed)
        for found, of in seeds.items():
            if found and len(of) > 1:
                listed = ", ".join(map(str, sorted(of)))
                yield (
                    f"{suite}: seeds {listed} of {variant} agree in every evaluation to the last digit: they are one "
                    "run, or learned nothing; as several samples they make intervals too narrow"
                )


def other_samplers(runs: Runs, kept: pl.DataFrame) -> Iterator[str]:
    """A line per algorithm whose training draws its images with a sampler of its own."""
    for (suite, variant), group in kept.group_by("suite", "variant", maintain_order=True):
        changes = sampler_changes(runs.records[group["run"][0]].suite, str(variant))
        if changes:
            yield (
                f"{suite}: another protocol: {variant} trains on images of a sampler of its own, {changes}; so it "
                "differs from the others by that too. The evaluations are on the suite's sampler"
            )


def thin_evidence(kept: pl.DataFrame) -> Iterator[str]:
    """A line per suite with a single algorithm, or with algorithms of a single seed."""
    for (suite,), group in kept.group_by("suite", maintain_order=True):
        variants = group["variant"].unique(maintain_order=True).to_list()
        if len(variants) == 1:
            yield f"{suite}: only {variants[0]} has finished runs, so there is nothing to compare it with"
        single = group.group_by("variant").len().filter(pl.col("len") == 1).sort("variant")
        if not single.is_empty():
            names = ", ".join(single["variant"])
            yield f"{suite}: one seed of {names}; with one seed nothing can be told from noise. Run more seeds"
