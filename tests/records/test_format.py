"""The records of a run's folder: closed, versioned, and older ones read through one migration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rfbench.core.algorithm import check_metrics
from rfbench.errors import InputError, InterfaceError
from rfbench.records.format import FORMAT, RESERVED
from rfbench.records.migration import parse_run
from rfbench.running.folder import RunFolder
from tests.report.run_writer import write_run

ROOT = Path(__file__).parents[2]
SHIPPED_TYPED = {"clip_range": 0.0003, "updates_per_epoch": 4}


def edited(folder: Path, **changes: Any) -> Path:
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_a_record_of_a_newer_format_is_refused_with_both_numbers(tmp_path: Path) -> None:
    folder = edited(write_run(tmp_path), format=FORMAT + 97)
    with pytest.raises(InputError, match=f"of format {FORMAT + 97}, and this rfbench reads up to {FORMAT}"):
        RunFolder(folder, writer=False).read_run()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "run.json is empty"),
        (b"null", "is not a record of a run"),
        (b'{"format": 2, "status": "fini', "is not valid JSON: it was cut off, or edited"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b'{"format": "two"}', "format is 'two'"),
        (b'{"format": true}', "format is True"),
        (b'{"format": 1, "status": "finished"}', "is not a record of a run:\n"),
    ],
)
def test_a_broken_run_json_is_one_message_with_the_remedy(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(InputError) as raised:
        RunFolder(tmp_path, writer=False).read_run()
    assert message in str(raised.value)
    assert "--overwrite" in str(raised.value)


def test_a_record_with_a_key_of_the_wrong_name_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    record = json.loads((folder / "run.json").read_text())
    record["algorithm"] = record.pop("variant")
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"variant is missing[\s\S]*unknown key algorithm"):
        RunFolder(folder, writer=False).read_run()
    lines = (folder / "evals.jsonl").read_text().replace('"evaluation_set"', '"set"')
    (folder / "evals.jsonl").write_text(lines)
    with pytest.raises(InputError, match=r"evals.jsonl, line 1, is no such record"):
        RunFolder(folder, writer=False).read("evals")


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    whole = RunFolder(folder, writer=False).read("evals")
    path = folder / "evals.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    assert RunFolder(folder, writer=False).read("evals") == whole[:-1]


@pytest.mark.parametrize("name", ["epoch", "images", "reward_mean", "denoiser_forwards", "update_seconds"])
def test_an_algorithms_metric_cannot_take_the_cores_name(name: str) -> None:
    assert name in RESERVED
    with pytest.raises(InterfaceError, match=f"the metric '{name}': that name is rfbench's own"):
        check_metrics({name: 99.0}, "the algorithm 'mine'")


def first_format(folder: Path) -> dict[str, Any]:
    """A run of format 1 as it was written: plugins' defaults missing, keys called as they were."""
    record = json.loads((folder / "run.json").read_text())
    record |= {"format": 1, "algorithm": record.pop("variant"), "plugins": {"algorithm": "rfbench 0.1.0"}}
    for key in ("variant_hash", "inputs", "host", "job", "restart"):
        del record[key]
    record["counters"] = {k.replace("denoiser", "unet"): v for k, v in record["counters"].items()}
    suite = {"model": {"name": "shapes"}, "reward": {"name": "shapes-preference"}}
    suite |= {"prompts": {"train": {"name": "shapes", "split": "small"}}, "evaluation": {"every": 5, "sets": {}}}
    record["suite"] |= suite
    record["suite"]["algorithms"]["ddpo"] |= {"algorithm": None, "config": SHIPPED_TYPED}
    return record


def test_a_record_of_the_first_format_gets_the_defaults_of_its_time(tmp_path: Path) -> None:
    record = parse_run(json.dumps(first_format(write_run(tmp_path, "ddpo"))).encode(), "run.json")
    assert (record.format, record.variant) == (FORMAT, "ddpo")
    assert record.counters.denoiser_forwards == 2 * record.counters.denoiser_backwards > 0
    table = record.suite["algorithms"]["ddpo"]
    assert table["algorithm"] == "ddpo"
    assert table["config"] == SHIPPED_TYPED | {
        "advantage": "per-prompt",
        "advantage_clip": 5.0,
        "buffer_size": 32,
        "min_count": 16,
    }
    assert record.plugins["algorithm"].origin == "rfbench 0.1.0"
