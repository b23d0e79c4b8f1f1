"""Writes docs/records.md from the models in `rfbench.records.format`, and from what each setting decides.

python -m rfbench_benchmarks.pages.records
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rfbench.records import identity
from rfbench.records.format import FORMAT, EpochRecord, EvaluationRecord, JudgementRecord, Record, RunRecord
from rfbench.suite.suite import Suite

PAGE = Path(__file__).parents[2] / "docs" / "records.md"
START = f"""# What a run's folder holds

Format {FORMAT}. Readable without rfbench: JSON, JSON lines, PNG. Older formats are read as this one; a newer one is
refused, and so is a key that is missing, or of another name. A finished run's lines may be gzipped
(`gzip metrics.jsonl evals.jsonl`), as in the shipped studies: they are read alike, and nothing more is written.

| file | what |
| --- | --- |
| `run.json` | what ran, how far it is, what it was made with |
| `metrics.jsonl` | a line per epoch |
| `evals.jsonl` | a line per evaluation, evaluation set and measure |
| `quick.jsonl`, `final.jsonl` | the same of `rfbench evaluate` and `calibrate` |
| `quick.json`, `final.json` | what those were made with |
| `samples/` | grids of images at each evaluation, the training reward of their tiles, and `index.json`, their prompts |
| `checkpoints/` | what `--resume` goes on from; they name whose they are, and cannot run code when loaded |
| `weights/` | what was trained, as its own library loads it |
| `trackers/` | event files of TensorBoard or Weights & Biases |
"""


def page() -> str:
    """The whole page."""
    parts = [START]
    for name, model in (("run.json", RunRecord), ("metrics.jsonl", EpochRecord), ("evals.jsonl", EvaluationRecord)):
        parts.append(_table(f"`{name}`", model))
    parts.append(_table("`quick.json`, `final.json`", JudgementRecord))
    return "\n".join([*parts, _identity()])


def _table(title: str, model: type[Record]) -> str:
    doc = re.sub(r"``([^`]+)``", r"`\1`", (model.__doc__ or "").partition("\n\n")[2].strip())
    rows = [f"| `{name}` | {_type(field.annotation)} | {field.description or ''} |" for name, field in _fields(model)]
    head = [f"## {title}", "", *([doc.replace("\n    ", "\n"), ""] if doc else []), "| key | type | what |"]
    return "\n".join([*head, "| --- | --- | --- |", *rows, ""])


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        inner = [a for a in (field.annotation, *get_args(field.annotation)) if _is_model(a)]
        yield prefix + name, field
        if inner:
            between = ".*." if get_origin(field.annotation) is not None else "."
            yield from _fields(inner[0], f"{prefix}{name}{between}")


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _type(annotation: Any) -> str:
    names = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}
    if annotation in names:
        return names[annotation]
    text = re.sub(r"(\w+\.)+", "", str(annotation)).replace("|", "or").replace("NoneType", "null")
    return "table" if _is_model(annotation) else text.replace("None", "null")


def _identity() -> str:
    """What each field of a suite decides."""
    levels: dict[str, list[str]] = {"resume": [], "free": []}
    for name in _leaves(Suite):
        level = identity.level_of(name)
        if level in levels:
            levels[level].append(f"`{name}`")
    return f"""## What makes two runs the same

`suite` in `run.json` holds every setting with its default filled in, those of the plugins too. What each decides:

- **The algorithm's table** must agree to resume and to pool seeds; `variant_hash` is its hash.
- **Must agree to resume only**, since it cannot change a training curve: {", ".join(levels["resume"])}; and the
  number of processes.
- **May change at any time**: {", ".join(levels["free"])}. Chunk sizes change results within float tolerance alone.
- **Everything else** must agree to resume, to pool and to compare; `suite_hash` is its hash. A setting that is null is
  as if it did not exist. The user's own files count by their content (`inputs`), not by where they lie.
- The code of plugins that are not rfbench's own, and the units and versions of the rewards, must agree too.
- rfbench's commit and the versions of packages may differ: `rfbench compare` says where they do.
"""


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name == "algorithms":
            continue
        declared = isinstance(field.json_schema_extra, dict) and "identity" in field.json_schema_extra
        inner = [a for a in (field.annotation, *get_args(field.annotation)) if _is_model(a)]
        if declared or not inner:
            yield prefix + name
        else:
            yield from _leaves(inner[0], f"{prefix}{name}." + ("NAME." if get_origin(field.annotation) is dict else ""))


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
