"""The idx files of MNIST, packed or not: they are read, and damage is named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from data_on_disk import forget, mnist, own_cache

from tasks.parts.data import load as data
from tasks.parts.settings import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from own_cache(tmp_path_factory.mktemp("cache"), monkeypatch)


@pytest.mark.parametrize("below", ["MNIST/raw", "mnist/MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_packed_and_unpacked(tmp_path: Path, below: str, packed: bool) -> None:
    made = mnist(tmp_path / below, packed)
    before = sorted(tmp_path.rglob("*"))
    data.check("mnist", root=tmp_path)
    for split in ("train", "test"):
        loaded = data.load("mnist", split, root=tmp_path)
        np.testing.assert_array_equal(np.asarray(loaded.images)[:, 0], made[split])
        assert loaded.labels.tolist() == [i % 10 for i in range(len(loaded))]
    assert sorted(tmp_path.rglob("*")) == before, "the data root is only read"


def test_mnist_agrees_with_torchvision(tmp_path: Path) -> None:
    mnist(tmp_path / "MNIST" / "raw")
    twin = torchvision.datasets.MNIST(str(tmp_path), train=True)
    loaded = data.load("mnist", "train", root=tmp_path)
    np.testing.assert_array_equal(np.asarray(loaded.images)[:, 0], twin.data.numpy())
    assert loaded.labels.tolist() == twin.targets.tolist()


@pytest.mark.parametrize("damage", [lambda c: c[:-20], lambda c: b"\0\0\x0d" + c[3:], lambda c: b""])
def test_a_damaged_idx_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    mnist(tmp_path / "MNIST" / "raw")
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte is damaged"):
        data.load("mnist", "test", root=tmp_path)


def test_a_packed_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    mnist(tmp_path / "MNIST" / "raw", packed=True)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        data.load("mnist", "train", root=tmp_path)


def test_idx_files_have_one_fingerprint_packed_or_not_and_it_tells_originals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mnist(tmp_path / "a" / "MNIST" / "raw")
    mnist(tmp_path / "b" / "mnist" / "MNIST" / "raw", packed=True)
    mnist(tmp_path / "c" / "MNIST" / "raw", seed=1)
    first, packed, other = (data.fingerprint("mnist", root=tmp_path / place) for place in "abc")
    assert first == packed
    assert len({first, other, data.fingerprint("mnist", root=tmp_path / "nothing yet")}) == 3
    assert data.fingerprint("mnist", root=tmp_path / "nothing yet") == "mnist"
    raw = tmp_path / "FashionMNIST" / "raw"
    mnist(raw, packed=True)
    assert data.fingerprint("fashion_mnist", root=tmp_path) != "fashion_mnist"
    sums = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in raw.iterdir()]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", sums)
    forget()
    assert data.fingerprint("fashion_mnist", root=tmp_path) == "fashion_mnist", "the published checksums agree"
    mnist(raw, seed=1)  # unpacked files beside them that are not what they unpack to
    forget()
    assert data.fingerprint("fashion_mnist", root=tmp_path) != "fashion_mnist"
