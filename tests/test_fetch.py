"""Downloads from a hub on this machine, by the real client: what is asked for, and what is said when it fails."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from rfbench.cli import exit_code
from rfbench.hub.fetch import download, explain, size_up
from rfbench.hub.sources import Need, Source
from tests.commands import said
from tests.forked import free_port
from tests.hub import COMMIT, Hub


def fetch(*arguments: str) -> int:
    return exit_code(["fetch", *arguments])


def test_downloads_exactly_what_the_suite_needs_and_nothing_twice(
    hub: Hub, here: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(*files) == 0
    assert hub.downloads() == ["config.json", "model.safetensors", "reward.pt", "train.json"]
    folder = here / "models--owner--model" / "snapshots" / COMMIT
    assert (folder / "unet" / "model.safetensors").read_bytes() == bytes(range(256)) * 400
    hub.requests.clear()
    assert fetch(*files) == 0
    assert hub.requests == []
    assert "nothing to download" in said(capsys)
    assert exit_code(["run", "prdp", "--suite", *files, "--dry-run", "--set", "prompts.train.path=/nope"]) == 0
    printed = said(capsys)
    assert "there is no file or folder /nope" in printed
    assert "model.path" not in printed


@pytest.mark.parametrize("whole", [False, True])
def test_a_sharded_repository(hub: Hub, here: Path, whole: bool) -> None:
    """The shards and their index, where there is no whole file; and of both forms the whole file alone."""
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}).encode()
    content = {"model.safetensors.index.json": index, shards[0]: b"a", shards[1]: b"b", "config.json": b"{}"}
    content |= {"model.safetensors": b"ab"} if whole else {}
    hub.repositories["models/owner/large"] = content
    source = Source("path", "owner/large", ("config.json", "model.safetensors"))
    (item,) = size_up([Need("model", source)], "SUITE")
    download(item)
    expected = ["config.json", "model.safetensors"] if whole else sorted(content)
    assert hub.downloads() == expected
    assert sorted(path.name for path in source.paths()) == expected
    assert source.commit() == COMMIT


def test_takes_up_a_connection_that_breaks(
    hub: Hub, here: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It breaks after every 40 kB: the client asks for the rest, and no byte comes twice."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 20_000)  # 10 MB: what is received is kept in such pieces
    hub.break_after = 40_000
    assert fetch(*files) == 0
    ranges = [line.rpartition(" ")[2] for line in hub.requests if "model.safetensors bytes" in line]
    assert ranges == ["bytes=40000-", "bytes=80000-"]
    found = Source("path", "owner/model", ("unet/*.safetensors",)).paths()
    assert [path.read_bytes() for path in found] == [bytes(range(256)) * 400]


def test_a_killed_fetch_is_not_taken_for_complete_and_goes_on(
    hub: Hub,
    here: Path,
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.hold.set()
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "rfbench", "fetch", *files],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 100
    while "model.safetensors" not in hub.downloads() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    hub.hold.clear()
    hub.requests.clear()
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        assert fetch(*files) == 2
    assert "HF_HUB_OFFLINE forbids" in said(capsys)
    assert hub.requests == []
    assert fetch(*files) == 0
    assert "model.safetensors" in hub.downloads()
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        assert fetch(*files) == 0


def test_a_gated_repository(hub: Hub, here: Path, files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    hub.gated.add("models/owner/model")
    assert fetch(*files) == 2
    message = said(capsys)
    assert f"accept its terms at {hub.endpoint}/owner/model" in message
    assert "hf auth login" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.path=owner/modle", "there is no model 'owner/modle'"),
        ("prompts.train.path=owner/promts", "there is no dataset 'owner/promts'"),
        ("model.revision=v9", "owner/model has no revision 'v9'"),
        ("reward.path=owner/model", "owner/model at revision main has no file reward.pt; check reward.path"),
        ("model.path=/no/such/folder", "there is no file or folder /no/such/folder"),
    ],
)
def test_wrong_names(
    hub: Hub, here: Path, files: list[str], override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(*files, "--set", override) == 2
    assert message in said(capsys)
    assert hub.downloads() == []


def test_an_unreachable_hub_is_named(
    here: Path, files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    assert fetch(*files) == 1
    assert f"the connection to the hub at {endpoint} failed" in said(capsys)


def test_a_disk_too_small(hub: Hub, here: Path, files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    hub.sizes["reward.pt"] = 10**18
    assert fetch(*files) == 1
    assert "1000000000.0 GB are to be downloaded" in said(capsys)
    assert hub.downloads() == []


def test_a_disk_that_fills_up() -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    assert "is full; make room there" in str(explain(error, Source("path", "owner/model", ("a",))))


def test_a_suite_without_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch("tiny-shapes") == 0
    assert "tiny-shapes reads no published files" in said(capsys)
