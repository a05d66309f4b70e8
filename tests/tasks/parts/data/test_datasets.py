"""Every data set keeps the contract, and is read as it is on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from data_on_disk import CIFAR10, cifar_batches, folders, forget, image, own_cache, tiny_imagenet
from PIL import Image

from tasks.parts.data import load as data
from tasks.parts.settings import UserError

REAL = os.environ.get("INPUTSCAPE_TEST_DATA")
real = pytest.mark.skipif(REAL is None, reason="INPUTSCAPE_TEST_DATA is not set")
EMBEDDED = {"blobs", "digits"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from own_cache(tmp_path_factory.mktemp("cache"), monkeypatch)


def kept_to_the_contract(name: str, split: str, root: str | None, image_size: int | None = None) -> data.Split:
    loaded = data.load(name, split, root=root, image_size=image_size)
    count = len(loaded)
    assert loaded.images.shape == (count, *loaded.shape)
    assert count > 0
    assert loaded.images.dtype in (np.uint8, np.float32)
    assert not loaded.images.flags.writeable
    assert loaded.labels.dtype == loaded.ids.dtype == np.int64
    assert loaded.ids.tolist() == list(range(count))
    assert loaded.labels.min() >= 0
    assert loaded.labels.max() < len(loaded.classes) == len(set(loaded.classes))
    some = data.choose(loaded, min(count, 50))
    images, labels = data.take(loaded, some)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert labels.tolist() == loaded.labels[some].tolist()
    mean, std = data.statistics(loaded, limit=500)
    assert len(mean) == len(std) == loaded.shape[0]
    assert all(0 < m < 1 for m in mean)
    assert all(0 < s < 1 for s in std)
    return loaded


@pytest.mark.parametrize("name", sorted(EMBEDDED))
@pytest.mark.parametrize("split", ["train", "test"])
def test_embedded_sets_keep_the_contract(name: str, split: str, cache: Path) -> None:
    data.check(name)
    kept_to_the_contract(name, split, root=None)
    assert not any(cache.iterdir()), "small sets stay off the disk"


@real
@pytest.mark.data
@pytest.mark.parametrize("split", ["test", pytest.param("train", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", sorted(set(data.names()) - EMBEDDED))
def test_sets_on_disk_keep_the_contract(name: str, split: str) -> None:
    root = str(Path(REAL or "") / "mnist") if name == "mnist" else REAL
    name = f"imagefolder:{REAL}" if name == "imagefolder" else name
    try:
        data.check(name, root=root)
    except UserError as error:
        pytest.skip(error.message)
    loaded = kept_to_the_contract(name, split, root)
    assert isinstance(loaded.images, np.memmap)
    assert loaded.images.mode == "r"


@real
@pytest.mark.data
def test_real_data_is_what_it_is_known_to_be() -> None:
    """Sizes, MNIST known as the original, the order of classes in CIFAR-10 and Tiny ImageNet."""
    digits = data.load("mnist", "test", root=REAL)
    assert (len(digits), digits.shape, data.fingerprint("mnist", root=REAL)) == (10_000, (1, 28, 28), "mnist")
    assert np.bincount(digits.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    photographs = data.load("cifar10", "test", root=REAL)
    assert (len(photographs), photographs.shape, list(photographs.classes)) == (10_000, (3, 32, 32), CIFAR10)
    assert np.bincount(photographs.labels).tolist() == [1000] * 10
    assert data.fingerprint("cifar10", root=REAL) not in ("cifar10", data.fingerprint(f"imagefolder:{REAL}"))
    tiny = data.load("tiny_imagenet", "test", root=REAL)
    assert (len(tiny), tiny.shape, tiny.classes[0]) == (10_000, (3, 64, 64), "Egyptian cat")
    assert np.bincount(tiny.labels).tolist() == [50] * 200


def test_digits_are_divided_class_by_class() -> None:
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert (len(train), len(test)) == (1297, 500)
    sizes = np.bincount(np.concatenate([train.labels, test.labels]))
    assert np.abs(np.bincount(test.labels) - sizes * 500 / 1797).max() < 1
    everything = {image.tobytes() for split in (train, test) for image in split.images}
    assert len(everything) == 1797, "an image is in both splits, or missing"
    assert set(np.unique(train.images * 16)) == set(range(17))


def test_blobs_are_learnable_and_the_splits_differ() -> None:
    train, test = data.load("blobs", "train"), data.load("blobs", "test")
    means = np.stack([train.images[train.labels == k].mean(0) for k in range(3)])
    nearest = np.square(test.images[:, None] - means).sum((2, 3, 4)).argmin(1)
    assert (nearest == test.labels).mean() > 0.95
    assert not np.isin(test.images.reshape(60, -1)[:, 0], train.images.reshape(180, -1)[:, 0]).any()


# --- reading


def test_imagefolder_reads_every_image_in_order(tmp_path: Path) -> None:
    made = folders(tmp_path / "pets", ["dog", "cat"], tests="val")  # written dog first, read cat first
    image(tmp_path / "pets/train/.hidden/0.png", 5)
    (tmp_path / "pets/train/cat/notes.txt").write_text("no image")
    name = f"imagefolder:{tmp_path}/pets"
    data.check(name)
    for split in ("train", "test"):
        loaded = data.load(name, split)
        assert loaded.classes == ("cat", "dog")
        assert loaded.labels.tolist() == [0, 0, 1, 1]
        np.testing.assert_array_equal(loaded.images, made[split][[2, 3, 0, 1]])
    relative = data.load("imagefolder:pets", "train", root=tmp_path)
    np.testing.assert_array_equal(relative.images, made["train"][[2, 3, 0, 1]])


def test_imagefolder_has_the_order_of_torchvision(tmp_path: Path) -> None:
    names = [
        "a/1.png",
        "a/10.PNG",
        "a/2.png",
        "a/sub/0.png",
        "a b/z.png",
        "a/sub 2/x.png",
        "B/q.png",
        "a/sub/deep/y.png",
    ]
    for seed, name in enumerate(names):
        image(tmp_path / "train" / name, seed)
        image(tmp_path / "test" / name, seed)
    twin = torchvision.datasets.ImageFolder(str(tmp_path / "train"))
    loaded = data.load(f"imagefolder:{tmp_path}", "train")
    assert list(loaded.classes) == twin.classes
    assert loaded.labels.tolist() == twin.targets
    np.testing.assert_array_equal(loaded.images, np.stack([np.asarray(one).transpose(2, 0, 1) for one, _ in twin]))


def test_a_class_that_only_the_test_folder_has_is_told(tmp_path: Path) -> None:
    folders(tmp_path, ["a", "b"])
    image(tmp_path / "test" / "c" / "0.png", 1)
    with pytest.raises(UserError, match="has the class 'c'"):
        data.check(f"imagefolder:{tmp_path}")


def test_cifar10_is_read_from_folders_in_its_own_order(tmp_path: Path) -> None:
    for place in (tmp_path / "a", tmp_path / "b" / "cifar10"):
        made = folders(place, CIFAR10, each=1)
        root = place if place.name == "a" else place.parent
        data.check("cifar10", root=root)
        loaded = data.load("cifar10", "test", root=root)
        assert list(loaded.classes) == CIFAR10
        assert loaded.labels.tolist() == list(range(10))
        np.testing.assert_array_equal(loaded.images, made["test"])


def test_cifar10_prefers_the_original_and_verifies_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(tmp_path, CIFAR10, each=1)
    exported = data.fingerprint("cifar10", root=tmp_path)
    forget()
    made = cifar_batches(tmp_path, monkeypatch)
    loaded = data.load("cifar10", "test", root=tmp_path)
    np.testing.assert_array_equal(loaded.images, made)
    assert loaded.labels.tolist() == [5, 1, 2]
    assert data.fingerprint("cifar10", root=tmp_path) == "cifar10" != exported
    batch = tmp_path / "cifar-10-batches-py" / "b0"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"cifar-10-batches-py is damaged"):
        data.load("cifar10", "train", root=tmp_path)


@pytest.mark.parametrize("below", ["", "tiny-imagenet-200"])
def test_tiny_imagenet_is_read_from_the_archives_layout(tmp_path: Path, below: str) -> None:
    tiny_imagenet(tmp_path / below)
    data.check("tiny_imagenet", root=tmp_path)
    train, test = (data.load("tiny_imagenet", split, root=tmp_path) for split in ("train", "test"))
    assert train.classes == test.classes == ("Egyptian cat", "crane (n01)", "crane (n02)")
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert test.labels.tolist() == [2, 0, 2], "the order is that of the annotations"
    for loaded, at, path in (
        (train, 0, "train/n03/images/n03_0.JPEG"),
        (train, 3, "train/n01/images/n01_1.JPEG"),
        (test, 0, "val/images/val_1.JPEG"),
    ):
        with Image.open(tmp_path / below / path) as twin:
            np.testing.assert_array_equal(loaded.images[at], np.asarray(twin).transpose(2, 0, 1))


@pytest.mark.parametrize("file", ["wnids.txt", "words.txt", "val/val_annotations.txt"])
def test_tiny_imagenets_texts_are_in_its_fingerprint(tmp_path: Path, file: str) -> None:
    tiny_imagenet(tmp_path)
    before = data.fingerprint("tiny_imagenet", root=tmp_path)
    lines = (tmp_path / file).read_text().splitlines()
    (tmp_path / file).write_text("\n".join(lines[1:] + lines[:1]) + "\n")
    forget()
    assert data.fingerprint("tiny_imagenet", root=tmp_path) != before
