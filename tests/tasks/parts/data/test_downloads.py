"""Missing data: where it belongs, whether a host answers, downloads whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from data_on_disk import mnist, own_cache

from tasks.parts.data import downloads, idx
from tasks.parts.data import load as data
from tasks.parts.settings import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from own_cache(tmp_path_factory.mktemp("cache"), monkeypatch)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every host refuses."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("refused")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist", "MNIST/raw/{train-images-idx3-ubyte,"),
        ("fashion_mnist", "FashionMNIST/raw/{train-images-idx3-ubyte,"),
        ("cifar10", "cifar-10-batches-py/"),
        ("cifar10", "train,test}/{airplane,...,truck}/"),
        ("cifar100", "cifar-100-python/"),
        ("tiny_imagenet", "tiny-imagenet-200/{wnids.txt,words.txt,train,val/images,val/val_annotations.txt}"),
        ("imagefolder:pets", "pets/train/<class>/"),
    ],
)
def test_missing_files_are_one_line_that_says_where_they_belong(tmp_path: Path, name: str, expected: str) -> None:
    root = tmp_path / "nowhere"
    start = time.monotonic()
    for ask in (data.check, lambda name, root: data.load(name, "train", root=root)):
        with pytest.raises(UserError, match="files not found, expected ") as caught:
            ask(name, root=root)
        assert str(root) in caught.value.message
        assert expected in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.field == "dataset"
    assert time.monotonic() - start < 8
    assert not root.exists(), "nothing is left behind"


def test_a_host_that_never_answers_costs_no_more_than_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*args: object, **kwargs: object) -> None:
        time.sleep(2)
        raise TimeoutError

    monkeypatch.setattr(downloads, "PATIENCE", 0.2)
    monkeypatch.setattr("urllib.request.urlopen", silent)
    start = time.monotonic()
    assert "no answer within 0.2 s" in downloads.unreachable(["http://a.invalid/x", "http://b.invalid/x"])
    assert time.monotonic() - start < 1


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served on this machine, as MNIST's only mirror."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield served
        server.shutdown()


def test_a_download_comes_whole(tmp_path: Path, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = mnist(host, packed=True)
    sums = [(f"{file}.gz", hashlib.md5((host / f"{file}.gz").read_bytes()).hexdigest()) for file in idx.FILES]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    root = tmp_path / "root"
    data.check("mnist", root=root)
    assert not root.exists(), "checking downloads nothing"
    loaded = data.load("mnist", "test", root=root)
    np.testing.assert_array_equal(np.asarray(loaded.images)[:, 0], made["test"])
    assert data.fingerprint("mnist", root=root) == "mnist"
    assert [path.name for path in root.iterdir()] == ["MNIST"]


def test_a_download_that_fails_leaves_nothing(tmp_path: Path, host: Path) -> None:
    mnist(host, packed=True)  # not the files whose checksums torchvision knows
    root = tmp_path / "root"
    with pytest.raises(UserError, match=r"not downloaded: RuntimeError: .*File not found or corrupted") as caught:
        data.load("mnist", "test", root=root)
    assert "\n" not in caught.value.message
    assert not list(root.iterdir())
