"""What all tests share.

They have one thread, none of the machine's own settings, a small network, and one Ray cluster.
"""

from __future__ import annotations

import io
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import environment
from PIL import Image
from torch import Tensor

from tasks.parts import batching
from tasks.parts.data import load as data
from tasks.parts.models.build import Classifier
from tasks.parts.training import training
from tasks.parts.training.recipes import Recipe


def pytest_configure() -> None:
    """Ray reads these as soon as it is imported, which some tests do before any fixture."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(), "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, those that need the cluster go to one of them."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if item.get_closest_marker("cluster"):
                item.add_marker(pytest.mark.xdist_group("cluster"))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """What a test computes, and how long it takes, then does not depend on the machine's cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_the_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches are the tests' own, and data sets are looked for nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("INPUTSCAPE_DATA", raising=False)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("INPUTSCAPE_CACHE", str(tmp_path_factory.mktemp("decoded")))
        yield


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test: its own, empty, and modules in it can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def blank_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are left blank, except where a test is marked `draws`.

    Drawing takes most of a small sweep's time.
    """

    def save(figure: object, form: str) -> bytes:
        content = io.BytesIO()
        Image.new("RGB", (8, 8)).save(content, form)
        return content.getvalue()

    if request.node.get_closest_marker("draws") is None:
        monkeypatch.setattr("analysis.style.save", save)


@pytest.fixture
def eight_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are padded to a multiple of 8, as on some processors.

    So an attack takes the same number of rows on all.
    """
    monkeypatch.setattr(batching, "grain", lambda threads: 8)


@pytest.fixture(scope="session")
def convnet() -> Classifier:
    """A small network for digits, trained just enough."""
    return training.trained(Recipe(epochs=3), data.load("digits", "train")).requires_grad_(False)


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """Sixty test images of digits, and their labels."""
    return data.take(data.load("digits", "test"), range(60))


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of two CPUs in processes of its own."""
    start = (
        "import ray, sys; cluster = ray.init(address='local', num_cpus=2, include_dashboard=False); "
        "print(cluster.address_info['gcs_address'], flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", start],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C in the tests' terminal ends it by the end of its input alone
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.communicate(timeout=60)  # which closes its standard input
