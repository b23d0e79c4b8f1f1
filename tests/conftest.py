"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rfbench.plugins import registry
from rfbench.suite.suite import Suite
from tests.hub import PLUGINS, SUITE, Hub, HubServer

if TYPE_CHECKING:
    from types import ModuleType

os.environ["OMP_NUM_THREADS"] = "1"  # of torch, before its import: the tests run in parallel processes


@pytest.fixture(autouse=True)
def _forget_plugin_files() -> Iterator[None]:
    """No test sees the plugins that another one added."""
    yield
    registry.forget()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was skipped for want of something, and the line that installs it."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.getreports("skipped"))
    for reason, count in reasons.items():
        reason = reason.removeprefix("Skipped: ")
        terminalreporter.write_line(f"{count} test{'s' if count > 1 else ''} skipped: {reason}", yellow=True)


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """`tests.tiny`, whose imports take seconds that tests of files alone need not spend."""
    from tests import tiny

    return tiny


@pytest.fixture(scope="session")
def pipeline(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion pipeline folder."""
    return tiny.make_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="session")
def prompt_file(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("\n".join(tiny.PROMPTS), encoding="utf-8")
    return path


@pytest.fixture
def suite(tiny: ModuleType, pipeline: Path, prompt_file: Path) -> Suite:
    """A suite on the tiny pipeline that trains three epochs in a second."""
    return tiny.make_suite(pipeline, prompt_file)


@pytest.fixture(scope="session")
def whole(
    tiny: ModuleType, pipeline: Path, prompt_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of an algorithm's run of ``suite`` that nothing disturbed, made once; it is only read."""
    from tests.runs import run

    out = tmp_path_factory.mktemp("whole")
    return cache(lambda label: run(tiny.make_suite(pipeline, prompt_file), out, label))


@pytest.fixture
def suite_file(tiny: ModuleType, pipeline: Path, prompt_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(tiny.SUITE_FILE.format(pipeline=pipeline, prompts=prompt_file))
    return path


@pytest.fixture(scope="session")
def results_of_a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the results of a finished run on the analytic world."""
    from tests.commands import SETS, rfbench

    root = tmp_path_factory.mktemp("finished")
    assert rfbench("run", "prdp", "--suite", "optimum-gaussian", "--out", root, *SETS) == 0
    return root


@pytest.fixture
def finished_run(results_of_a_run: Path, tmp_path: Path) -> Path:
    """A finished run's folder, to be spoilt."""
    return Path(shutil.copytree(results_of_a_run, tmp_path / "results")) / "optimum-gaussian" / "prdp" / "seed-0"


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with a model, a reward and prompts; each repository also has a file that nobody needs."""
    content = Hub(
        {
            "models/owner/model": {
                "unet/config.json": b"{}",
                "unet/model.safetensors": bytes(range(256)) * 400,
                "unet/model.bin": b"a pickle",
            },
            "models/owner/reward": {"reward.pt": b"weights", "other.pt": b"other weights"},
            "datasets/owner/prompts": {"train.json": b'["a"]', "test.json": b'["b"]'},
        }
    )
    with HubServer(content):
        yield content


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The suite, and the plugins of its names: the command line after the command."""
    (tmp_path / "published.toml").write_text(SUITE)
    (tmp_path / "published_plugins.py").write_text(PLUGINS)
    return [str(tmp_path / "published.toml"), "--plugin", str(tmp_path / "published_plugins.py")]


@pytest.fixture
def here(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process talks to the hub above, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    url = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants._HF_DEFAULT_ENDPOINT, hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"
