"""A hub on this machine: the part of the Hugging Face hub's HTTP interface that a download uses.

A repository is a folder of files at one commit. LFS files (``*.safetensors``, ``*.pt``) carry the sha256 of their
content as ETag and the others git's blob id, as on the real hub.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

SUITE = """
name = "published"
version = 1
epochs = 1
model = { name = "published-model", path = "owner/model" }
reward = { name = "published-reward", path = "owner/reward" }
prompts = { train = { name = "published-prompts", path = "owner/prompts" } }
budget = { reward_queries_per_epoch = 8 }
sampler = { kind = "ddim", num_steps = 10, guidance_scale = 1.0 }
[evaluation.sets.seen]
prompts = "train"
seen = true
num_prompts = 1
images_per_prompt = 2
"""
PLUGINS = """
from rfbench.worlds.gaussian.model import Gaussian, GaussianConfig
from rfbench.worlds.gaussian.prompts import GaussianPrompts
from rfbench.worlds.gaussian.reward import GaussianLinear
from rfbench.hub.sources import Source
from rfbench.suite.settings import Settings

class Config(Settings):
    path: str
    revision: str = "main"

class ModelConfig(GaussianConfig):
    path: str
    revision: str = "main"

class PublishedModel(Gaussian):
    "Reads files of a hub."
    Config = ModelConfig
    @classmethod
    def sources(cls, config):
        files = ("unet/config.json", "unet/*.safetensors")
        return [Source("path", config.path, files, config.revision, gigabytes=4.3)]

class PublishedReward(GaussianLinear):
    "Reads files of a hub."
    Config = Config
    @classmethod
    def sources(cls, config):
        return [Source("path", config.path, ("reward.pt",), config.revision, gigabytes=3.9)]

class PublishedPrompts(GaussianPrompts):
    "Reads files of a hub."
    Config = Config
    @classmethod
    def sources(cls, config):
        return [Source("path", config.path, ("train.json",), config.revision, "dataset")]
"""


COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS = (".safetensors", ".pt", ".pth")


@dataclass
class Hub:
    """The server's content and what it was asked.

    Attributes:
        repositories: "models/owner/name" or "datasets/owner/name" -> file name -> content.
        gated: repositories whose files need accepted terms.
        sizes: sizes to claim instead of the true ones, by file name.
        break_after: bytes after which an answer with a file breaks off.
        hold: while set, an answer with a file stops halfway and waits.
        requests: "METHOD path" of every request, with the Range header where there was one.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)
    break_after: int | None = None
    hold: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)
    endpoint: str = ""

    def downloads(self) -> list[str]:
        """The files that were asked for, in alphabetical order."""
        return sorted(
            line.rpartition("/")[2] for line in self.requests if line.startswith("GET") and "/resolve/" in line
        )


class HubServer(ThreadingHTTPServer):
    """Serves a ``Hub`` on a free port of this machine while it is used as a context."""

    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), _Handler)
        hub.endpoint = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *args: Any) -> None:
        self.shutdown()
        super().__exit__(*args)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_HEAD(self) -> None:  # the name that http.server calls
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        part = self.headers.get("Range")
        hub.requests.append(f"{self.command} {path}" + (f" {part}" if part else ""))
        listing = re.fullmatch(r"/api/(\w+/[^/]+/[^/]+)/(?:revision|tree)/([^/]+)", path)
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if listing:
            key, revision = listing.groups()
        elif file:
            kind, name, revision, filename = file.groups()
            key = f"{kind or 'models/'}{name}"
        else:
            return self._fail(404, "")
        if key not in hub.repositories:
            return self._fail(401, "RepoNotFound")
        if revision not in ("main", COMMIT):
            return self._fail(404, "RevisionNotFound")
        files = hub.repositories[key]
        if listing:
            rows = [_row(name, content, hub.sizes.get(name)) for name, content in files.items()]
            tree = [row | {"path": row["rfilename"], "type": "file", "oid": row["blobId"]} for row in rows]
            info = {"id": key.partition("/")[2], "sha": COMMIT, "siblings": rows, "tags": [], "private": False}
            return self._json(tree if "/tree/" in path else info)
        if key in hub.gated:
            return self._fail(403, "GatedRepo")
        if filename not in files:
            return self._fail(404, "EntryNotFound")
        self._file(filename, files[filename], part)

    def _file(self, name: str, content: bytes, part: str | None) -> None:
        hub, start = self.server.hub, int(part.removeprefix("bytes=").partition("-")[0]) if part else 0
        self.send_response(206 if part else 200)
        self.send_header("ETag", f'"{_etag(name, content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        if part:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if hub.break_after is not None and len(content) - start > hub.break_after:
            self.wfile.write(content[start : start + hub.break_after])
            self.wfile.flush()
            self.close_connection = True
            return
        half = start + (len(content) - start) // 2
        self.wfile.write(content[start:half])
        while hub.hold.is_set():
            time.sleep(0.02)
        self.wfile.write(content[half:])

    def _json(self, data: Any) -> None:
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """The requests are in ``Hub.requests``."""


def _etag(name: str, content: bytes) -> str:
    if name.endswith(LFS):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _row(name: str, content: bytes, size: int | None) -> dict[str, Any]:
    row: dict[str, Any] = {"rfilename": name, "size": size or len(content), "blobId": hashlib.sha1(content).hexdigest()}
    if name.endswith(LFS):
        row["lfs"] = {
            "sha256": _etag(name, content),
            "oid": _etag(name, content),
            "size": row["size"],
            "pointerSize": 1,
        }
    return row
