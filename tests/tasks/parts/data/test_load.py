"""The data room: every data set keeps the contract, examples are chosen fairly, nothing is decoded twice or handed out to write."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import json
import multiprocessing
import os
import pickle
import shutil
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.parts.data import cache as decoded
from tasks.parts.data import downloads, idx
from tasks.parts.data import load as data
from tasks.parts.settings import UserError

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
REAL = os.environ.get("INPUTSCAPE_TEST_DATA")
real = pytest.mark.skipif(REAL is None, reason="INPUTSCAPE_TEST_DATA is not set")
EMBEDDED = {"blobs", "digits"}


def forget() -> None:
    data._load.cache_clear()
    data._fingerprint.cache_clear()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own for every test, in memory and on disk."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("INPUTSCAPE_CACHE", str(folder))
    forget()
    yield folder
    forget()
    shutil.rmtree(folder)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every host refuses."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("refused")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def image(path: Path, pixels: np.ndarray | int, size: tuple[int, int] = (4, 4)) -> np.ndarray:
    """Writes an image, of noise with this seed or of these pixels (H, W, 3); returns it as (3, H, W)."""
    if isinstance(pixels, int):
        pixels = np.random.default_rng(pixels).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels.transpose(2, 0, 1)


def folders(root: Path, classes: list[str], tests: str = "test", each: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """An image folder; returns the images of each split in the order they should come in."""
    made: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    for split, place in (("train", "train"), ("test", tests)):
        for name in classes:
            for i in range(each):
                seed += 1
                made[split].append(image(root / place / name / f"{i}.png", seed))
    return {split: np.stack(images) for split, images in made.items()}


def write_idx(path: Path, array: np.ndarray, packed: bool = False) -> None:
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, mtime=0))
    else:
        path.write_bytes(content)


def mnist(raw: Path, packed: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """Idx files of 12 training and 5 test images."""
    rng = np.random.default_rng(seed)
    made = {}
    for prefix, split, count in (("train", "train", 12), ("t10k", "test", 5)):
        made[split] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{prefix}-images-idx3-ubyte", made[split], packed)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10, packed)
    return made


def tiny_imagenet(folder: Path) -> dict[str, np.ndarray]:
    """Three classes, wnids not in alphabetical order, two of them with the same first word; validation images shuffled."""
    folder.mkdir(parents=True, exist_ok=True)
    wnids = ["n03", "n01", "n02"]
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (folder / "words.txt").write_text("n01\tcrane\nn02\tcrane, derrick\nn03\tEgyptian cat, puss\nn09\tnot here\n")
    train = [
        image(folder / f"train/{w}/images/{w}_{i}.JPEG", 10 * k + i) for k, w in enumerate(wnids) for i in range(2)
    ]
    lines = []
    for i, wnid in ((1, "n02"), (0, "n03"), (2, "n02")):
        image(folder / f"val/images/val_{i}.JPEG", 100 + i)
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t3\t3\n")
    (folder / "val/val_annotations.txt").write_text("".join(lines))
    return {"train": np.stack(train)}


def split_of(labels: list[int], gaps: list[int] | None = None, classes: int = 4) -> data.Split:
    """A split without much of an image: the first pixel of example i is i."""
    count = len(labels)
    ids = np.cumsum(gaps if gaps is not None else [1] * count, dtype=np.int64) - 1
    images = (np.arange(count) % 256).astype(np.uint8)[:, None, None, None] * np.ones((1, 1, 1, 2), np.uint8)
    images.flags.writeable = False
    return data.Split(images, np.array(labels, np.int64), ids, tuple(f"class {k}" for k in range(classes)))


@st.composite
def splits(draw: st.DrawFn) -> data.Split:
    labels = draw(st.lists(st.integers(0, 3), min_size=1, max_size=60))
    gaps = draw(st.lists(st.integers(1, 1000), min_size=len(labels), max_size=len(labels)))
    return split_of(labels, gaps)


# --- the contract


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
    """Sizes, the original MNIST recognised, and the order of CIFAR-10's and Tiny ImageNet's classes."""
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


def test_cifar10_is_read_from_folders_in_its_own_order(tmp_path: Path) -> None:
    for place in (tmp_path / "a", tmp_path / "b" / "cifar10"):
        made = folders(place, CIFAR10, each=1)
        root = place if place.name == "a" else place.parent
        data.check("cifar10", root=root)
        loaded = data.load("cifar10", "test", root=root)
        assert list(loaded.classes) == CIFAR10
        assert loaded.labels.tolist() == list(range(10))
        np.testing.assert_array_equal(loaded.images, made["test"])


def cifar_batches(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """CIFAR-10's batch files with three images each and their checksums; returns the test images."""
    folder, dataset = root / "cifar-10-batches-py", torchvision.datasets.CIFAR10
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, Any]) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 3, 3072), dtype=np.uint8)
    written = [
        write(name, {"data": pixels[i], "labels": [i, 1, 2]}) for i, name in enumerate(f"b{i}" for i in range(6))
    ]
    meta = write("meta", {"label_names": CIFAR10})
    monkeypatch.setattr(dataset, "train_list", written[:5])
    monkeypatch.setattr(dataset, "test_list", written[5:])
    monkeypatch.setattr(dataset, "meta", {"filename": "meta", "key": "label_names", "md5": meta[1]})
    return pixels[5].reshape(3, 3, 32, 32)


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
def test_a_damaged_idx_file_is_named(tmp_path: Path, damage: Any) -> None:
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


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"not an image"])
def test_a_corrupt_image_is_named_and_nothing_is_left(tmp_path: Path, cache: Path, damage: Any) -> None:
    folders(tmp_path, ["a", "b"], each=3)
    bad = tmp_path / "train" / "b" / "1.png"
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(UserError, match=r"train/b/1\.png cannot be read as an image") as caught:
        data.load(f"imagefolder:{tmp_path}", "train")
    assert caught.value.field == "dataset"
    assert "\n" not in caught.value.message
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]
    data.load(f"imagefolder:{tmp_path}", "test")  # the other split is none the worse


def test_a_users_function_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_1.py").write_text(
        "import numpy as np\n"
        "def stripes(split, root):\n"
        "    return np.full((4, 1, 2, 3), 0.5) * (root / 'x').exists(), [0, 1, 1, 0], ['thin', 'thick']\n"
        "def wrong(split, root):\n"
        "    return np.full((4, 1, 2, 3), 2.0), [0, 1, 1, 0], ['thin', 'thick']\n"
        "number = 3\n"
    )
    (tmp_path / "broken_1.py").write_text("1 / 0\n")
    (tmp_path / "broken_2").mkdir()
    (tmp_path / "broken_2" / "__init__.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "x").touch()
    data.check("mine_1:stripes", root=tmp_path)
    loaded = data.load("mine_1:stripes", "train", root=tmp_path)
    assert loaded.classes == ("thin", "thick")
    assert loaded.images.dtype == np.float32
    assert (np.asarray(loaded.images) == 0.5).all()
    elsewhere = data.load("mine_1:stripes", "train", root=tmp_path / "elsewhere")
    assert (np.asarray(elsewhere.images) == 0).all(), "another root may hold other data"
    assert data.fingerprint("mine_1:stripes", root="/a") == data.fingerprint("mine_1:stripes", root="/b")
    for name, line in (
        ("mine_1:number", "has no function 'number'"),
        ("mine_1:strips", "has no function 'strips'"),
        ("broken_1:stripes", "cannot be imported: ZeroDivisionError"),
        ("broken_2.inside:stripes", "cannot be imported: ZeroDivisionError"),
        ("mine_2:stripes", "unknown data set 'mine_2:stripes'"),
    ):
        with pytest.raises(UserError, match=line):
            data.check(name)
    with pytest.raises(UserError, match=r"images must be uint8, or floats in \[0, 1\]"):
        data.load("mine_1:wrong", "train")
    before = data.fingerprint("mine_1:stripes")
    with open(tmp_path / "mine_1.py", "a") as file:
        file.write("version = 2\n")
    forget()
    assert data.fingerprint("mine_1:stripes") != before
    assert "mine_1" in sys.modules


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ((np.zeros((2, 4, 4), np.uint8), [0, 1], ["a", "b"]), r"shape \(N, C, H, W\)"),
        ((np.zeros((2, 1, 4, 4), np.int64), [0, 1], ["a", "b"]), "must be uint8, or floats"),
        ((np.full((2, 1, 4, 4), np.nan), [0, 1], ["a", "b"]), "must be uint8, or floats"),
        ((np.zeros((2, 1, 4, 4), np.uint8), [0], ["a", "b"]), "labels must be 2 integers"),
        ((np.zeros((2, 1, 4, 4), np.uint8), [0.0, 1.0], ["a", "b"]), "labels must be 2 integers"),
        ((np.zeros((2, 1, 4, 4), np.uint8), [0, 2], ["a", "b"]), r"labels must lie in 0\.\.1"),
        ((np.zeros((2, 1, 4, 4), np.uint8), [-1, 1], ["a", "b"]), r"labels must lie in 0\.\.1"),
        ((np.zeros((2, 1, 4, 4), np.uint8), [0, 1], ["a", "a"]), "class names must be different"),
        (([], [], ["a", "b"]), "N, C, H, W|floats"),
    ],
)
def test_what_breaks_the_contract_is_told(raw: Any, line: str) -> None:
    for door in (decoded.in_memory, lambda raw: decoded.cached(["broken"], lambda: raw)):
        with pytest.raises(UserError, match=line):
            door(raw)


# --- sizes


def test_images_of_different_sizes_need_image_size(tmp_path: Path) -> None:
    for split in ("train", "test"):
        image(tmp_path / split / "a" / "0.png", 0, (6, 4))
        image(tmp_path / split / "a" / "1.png", 1, (4, 9))
    name = f"imagefolder:{tmp_path}"
    with pytest.raises(UserError, match=r"0\.png 4 x 6, .*1\.png 9 x 4\): image_size is needed") as caught:
        data.load(name, "train")
    assert caught.value.field == "image_size"
    assert data.load(name, "train", image_size=4).shape == (3, 4, 4)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_resizing_keeps_the_centre_and_flat_images(kind: Any) -> None:
    scale = 255 if kind is np.uint8 else 1
    wide = np.zeros((2, 3, 8, 24), kind)
    wide[:, :, :, 8:16] = scale  # the middle third
    (images, _, _) = decoded.in_memory((wide, [0, 0], ["a"]), image_size=8)
    assert images.shape == (2, 3, 8, 8)
    assert images.dtype == kind
    assert (images == scale).all()
    (images, _, _) = decoded.in_memory((wide[..., 8:16], [0, 0], ["a"]), image_size=3)
    assert (images == scale).all()


def test_resizing_is_antialiased_and_the_same_for_files_and_arrays(tmp_path: Path) -> None:
    board = (
        np.indices((32, 32)).sum(0)[..., None] % 2 * np.full(3, 255)
    )  # a checkerboard: aliased, it stays black and white
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    for i, pixels in enumerate((board, noise)):
        image(tmp_path / "train" / "a" / f"{i}.png", pixels.astype(np.uint8))
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    files = np.asarray(data.load(f"imagefolder:{tmp_path}", "train", image_size=8).images)
    assert 100 < files[0].min() <= files[0].max() < 155
    arrays = np.stack([board, noise]).transpose(0, 3, 1, 2).astype(np.uint8)
    (images, _, _) = decoded.in_memory((arrays, [0, 0], ["a"]), image_size=8)
    assert np.abs(images.astype(int) - files).max() <= 1


# --- class filters, choosing, dividing


def test_a_class_filter_renumbers_labels_and_keeps_ids() -> None:
    whole = data.load("digits", "test")
    part = data.load("digits", "test", classes=["7", 2])
    assert part.classes == ("7", "2")
    assert part.ids.tolist() == np.flatnonzero(np.isin(whole.labels, [2, 7])).tolist()
    assert (np.array([7, 2])[part.labels] == whole.labels[part.ids]).all()
    for ids in (part.ids, part.ids[::-3].copy()):
        (left, _), (right, _) = data.take(part, ids), data.take(whole, ids)
        assert torch.equal(left, right)
    np.testing.assert_array_equal(np.asarray(part.images), whole.images[part.ids])
    with pytest.raises(UserError, match="unknown example id"):
        data.take(part, [int(np.flatnonzero(whole.labels == 3)[0])])


@settings(deadline=None)
@given(splits(), st.data())
def test_choose_is_nested_balanced_and_deterministic(split: data.Split, draws: st.DataObject) -> None:
    more = draws.draw(st.integers(1, len(split)))
    fewer = draws.draw(st.integers(1, more))
    large, small = data.choose(split, more), data.choose(split, fewer)
    assert len(large) == more
    assert set(small.tolist()) <= set(large.tolist()) <= set(split.ids.tolist())
    assert (np.diff(large) > 0).all()
    counts = np.bincount(split.labels[np.searchsorted(split.ids, large)], minlength=4)
    sizes = np.bincount(split.labels, minlength=4)
    lasting = counts < sizes  # a class that gave all it has may have given less
    assert counts.max() - counts[lasting].min(initial=counts.max()) <= 1
    again = data.Split(np.zeros((len(split), 3, 1, 1), np.float32), split.labels, split.ids, split.classes)
    assert data.choose(again, more).tolist() == large.tolist(), "labels and ids decide, nothing else"


@settings(deadline=None)
@given(splits(), st.data())
def test_choosing_in_classes_is_choosing_from_their_part(split: data.Split, draws: st.DataObject) -> None:
    present = sorted(set(split.labels.tolist()))
    wanted = draws.draw(st.lists(st.sampled_from(present), min_size=1, unique=True))
    inside = data.subset(split, split.ids[np.isin(split.labels, wanted)])
    count = draws.draw(st.integers(1, len(inside)))
    names = [split.classes[k] for k in wanted]
    assert data.choose(split, count, names).tolist() == data.choose(inside, count).tolist()
    assert data.choose(split, None, wanted).tolist() == inside.ids.tolist()


def test_choose_mixes_the_examples_of_a_class() -> None:
    """Not the first of each class: in a folder those are alike."""
    ids = data.choose(split_of([0] * 1000, classes=1), 100)
    assert 350 < ids.mean() < 650
    assert ids.max() > 900


def test_choose_takes_lists_of_ids() -> None:
    split = split_of([0, 1, 2, 3, 0, 1], gaps=[1, 2, 2, 2, 2, 2])  # ids 0, 2, 4, 6, 8, 10
    assert data.choose(split).tolist() == [0, 2, 4, 6, 8, 10]
    assert data.choose(split, [8, 2, 0]).tolist() == [0, 2, 8]
    assert data.choose(split, [8, 2, 0], classes=["class 0"]).tolist() == [0, 8]
    mistakes: list[tuple[Any, Any, str]] = [
        ([8, 3], None, r"unknown example id 3; this split has 6 ids in 0\.\.10"),
        ([-1], None, "unknown example id -1"),
        ([2, 8, 2], None, "the id 2 is given more than once"),
        ([], None, "a number or a list of ids"),
        ([0.5], None, "a number or a list of ids"),
        ("all", None, "a number or a list of ids"),
        ([2], [0], "none of the ids is of the classes"),
        (7, None, "7 examples asked for, there are 6"),
        (3, ["class 0"], "3 examples asked for, there are 2"),
        (0, None, "0 examples asked for"),
        (True, None, "True examples asked for"),
    ]
    for examples, classes, line in mistakes:
        with pytest.raises(UserError, match=line) as caught:
            data.choose(split, examples, classes)
        assert caught.value.field == "examples"


@settings(deadline=None)
@given(splits(), st.floats(0, 1), st.integers(0, 2**40))
def test_divide_is_stratified_and_complete(split: data.Split, fraction: float, seed: int) -> None:
    train, validation = data.divide(split, fraction, seed)
    assert sorted([*train.ids, *validation.ids]) == split.ids.tolist()
    assert abs(len(validation) - fraction * len(split)) <= 0.5 + 1e-9
    counts, sizes = (np.bincount(part.labels, minlength=4) for part in (validation, split))
    assert (np.abs(counts - fraction * sizes) <= 1 + 1e-9).all()
    assert data.divide(split, fraction, seed)[1].ids.tolist() == validation.ids.tolist()
    for part in (train, validation):
        where = np.searchsorted(split.ids, part.ids)
        np.testing.assert_array_equal(np.asarray(part.images), split.images[where])
        assert part.labels.tolist() == split.labels[where].tolist()
        assert part.classes == split.classes


def test_divide_depends_on_the_seed_and_copies_nothing() -> None:
    split = data.load("digits", "train")
    train, validation = data.divide(split, 0.2, seed=0)
    assert data.divide(split, 0.2, seed=1)[1].ids.tolist() != validation.ids.tolist()
    assert isinstance(train.images, data.Selection)
    assert train.images.base is split.images
    deeper, _ = data.divide(train, 0.5)
    assert isinstance(deeper.images, data.Selection)
    assert deeper.images.base is split.images
    np.testing.assert_array_equal(np.asarray(deeper.images), split.images[deeper.ids])
    whole, none = data.divide(split, 0)
    assert whole is split
    assert len(none) == 0
    assert none.shape == split.shape
    with pytest.raises(UserError, match="must lie in"):
        data.divide(split, 1.5)


def test_gather_takes_positions_in_any_order() -> None:
    split = split_of(list(range(4)) * 5)
    part = data.subset(split, [3, 10, 17])
    expected = torch.tensor([17, 3, 3]) / 255
    for positions in ([2, 0, 0], np.array([2, 0, 0]), torch.tensor([2, 0, 0])):
        got = data.gather(part, positions)
        assert got.shape == (3, 1, 1, 2)
        assert torch.equal(got[:, 0, 0, 0], expected)
    assert data.gather(part, []).shape == (0, 1, 1, 2)


def test_take_is_by_id_and_in_the_order_asked() -> None:
    split = split_of([0, 1, 2, 3], gaps=[5, 5, 5, 5])  # ids 4, 9, 14, 19
    images, labels = data.take(split, [19, 4, 19])
    assert labels.tolist() == [3, 0, 3]
    assert torch.equal(images[:, 0, 0, 0], torch.tensor([3, 0, 3]) / 255)
    assert labels.dtype == torch.int64
    for unknown in (0, 5, 20, -1):
        with pytest.raises(UserError, match=rf"unknown example id {unknown}; this split has 4 ids in 4\.\.19"):
            data.take(split, [4, unknown])


def test_statistics_have_a_closed_form() -> None:
    half = np.zeros((6, 2, 2, 2), np.uint8)
    half[:, 0, 0] = 255  # channel 0: half black, half white
    half[:, 1] = 51
    split = data.Split(half, np.zeros(6, np.int64), np.arange(6), ("a",))
    mean, std = data.statistics(split)
    assert mean == pytest.approx((0.5, 0.2))
    assert std == pytest.approx((0.5, 0.0))
    floats = data.Split((half / 255).astype(np.float32), split.labels, split.ids, split.classes)
    assert data.statistics(floats) == (pytest.approx(mean), pytest.approx(std, abs=1e-6))


def test_statistics_of_a_sorted_folder_see_every_class() -> None:
    labels = np.repeat([0, 1], 20_000)
    images = (labels * 255).astype(np.uint8)[:, None, None, None]
    split = data.Split(images, labels, np.arange(40_000), ("dark", "bright"))
    mean, _ = data.statistics(split)
    assert mean == pytest.approx((0.5,))


# --- shared memory


@pytest.mark.parametrize("where", ["mapped", "memory", "part"])
def test_what_is_handed_out_never_aliases_the_shared_images(tmp_path: Path, where: str) -> None:
    if where == "mapped":
        mnist(tmp_path / "MNIST" / "raw")
        split = data.load("mnist", "test", root=tmp_path)
    else:
        split = data.load("digits", "test", classes=range(10) if where == "part" else None)
    before, labels = np.array(split.images), split.labels.copy()
    for ids in (split.ids, split.ids[:1], [0, 1, 2]):
        images, truth = data.take(split, ids)
        images.fill_(0.25)
        truth.fill_(-1)
        data.gather(split, ids).fill_(0.25)
    data.choose(split).fill(0)
    np.testing.assert_array_equal(np.asarray(split.images), before)
    np.testing.assert_array_equal(split.labels, labels)
    base = split.images.base if isinstance(split.images, data.Selection) else split.images
    for array in (base, split.labels, split.ids):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_loading_twice_gives_the_same_object(tmp_path: Path) -> None:
    mnist(tmp_path / "MNIST" / "raw")
    assert data.load("mnist", "test", root=tmp_path) is data.load("mnist", "test", root=str(tmp_path))


# --- the cache of decoded images


def counted(log: Path) -> decoded.Raw:
    with open(log, "a") as file:
        file.write("made\n")
    time.sleep(0.4)
    return np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2), [0, 1], ["a", "b"]


def ask(log: Path, results: Any) -> None:
    images, labels, classes = decoded.cached(["twice"], functools.partial(counted, log))
    results.put((np.asarray(images).tolist(), labels.tolist(), classes))


def test_two_processes_that_ask_at_once_decode_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=ask, args=(tmp_path / "log", results)) for _ in range(3)]
    for process in processes:
        process.start()
    got = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert (tmp_path / "log").read_text() == "made\n"
    assert got == [([[[[0, 1], [2, 3]]], [[[4, 5], [6, 7]]]], [0, 1], ("a", "b"))] * 3


def entry(cache: Path) -> Path:
    (found,) = (path for path in cache.iterdir() if path.is_dir())
    return found


@pytest.mark.parametrize(
    "damage",
    [
        lambda e: os.truncate(e / "images.npy", (e / "images.npy").stat().st_size - 1),
        lambda e: os.truncate(e / "images.npy", 10),
        lambda e: os.truncate(e / "labels.npy", 0),
        lambda e: np.save(e / "images.npy", np.zeros((4, 3, 2, 2), np.uint8)),
        lambda e: (e / "images.npy").unlink(),
        lambda e: (e / "meta.json").write_text("{"),
        lambda e: (e / "meta.json").write_text(json.dumps({"identity": "another"})),
        lambda e: (e / "meta.json").write_text("[]"),
    ],
)
def test_a_damaged_entry_is_made_again(tmp_path: Path, cache: Path, damage: Any) -> None:
    made = folders(tmp_path, ["a", "b"])
    name = f"imagefolder:{tmp_path}"
    data.load(name, "train")
    damage(entry(cache))
    forget()
    np.testing.assert_array_equal(data.load(name, "train").images, made["train"])
    stamp = (entry(cache) / "images.npy").stat().st_mtime_ns
    forget()
    data.load(name, "train")
    assert (entry(cache) / "images.npy").stat().st_mtime_ns == stamp, "made again although nothing was wrong"


def test_a_good_entry_is_opened_without_reading_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(tmp_path, ["a", "b"])
    before = np.array(data.load(f"imagefolder:{tmp_path}", "train").images)
    forget()
    monkeypatch.setattr(decoded, "_decoded", lambda path, size: pytest.fail(f"{path} was decoded again"))
    np.testing.assert_array_equal(data.load(f"imagefolder:{tmp_path}", "train").images, before)


def test_changed_images_are_decoded_anew(tmp_path: Path) -> None:
    folders(tmp_path, ["a", "b"])
    name = f"imagefolder:{tmp_path}"
    before, old = np.array(data.load(name, "train").images), data.fingerprint(name)
    changed = image(tmp_path / "train" / "a" / "0.png", 99)
    forget()
    after = data.load(name, "train").images
    np.testing.assert_array_equal(after[0], changed)
    assert not np.array_equal(after[0], before[0])
    assert data.fingerprint(name) != old


def test_a_change_under_way_never_enters_the_cache_under_the_old_name(tmp_path: Path) -> None:
    folders(tmp_path, ["a", "b"])
    name = f"imagefolder:{tmp_path}"
    data.fingerprint(name)  # remembered
    image(tmp_path / "train" / "a" / "0.png", 99)
    with pytest.raises(UserError, match="changed while"):
        data.load(name, "train")


def test_what_a_killed_process_left_is_cleared(tmp_path: Path, cache: Path) -> None:
    folders(tmp_path, ["a", "b"])
    data.load(f"imagefolder:{tmp_path}", "train")
    kept = entry(cache)
    abandoned = cache / f"{kept.name}.99999.tmp"
    kept.rename(abandoned)
    forget()
    data.load(f"imagefolder:{tmp_path}", "train")
    assert not abandoned.exists()
    assert entry(cache) == kept


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    mnist(tmp_path / "MNIST" / "raw")
    monkeypatch.setenv("INPUTSCAPE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot be written .*; set INPUTSCAPE_CACHE"):
        data.load("mnist", "test", root=tmp_path)


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    mnist(tmp_path / "MNIST" / "raw")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="No space left on device"):
        data.load("mnist", "test", root=tmp_path)
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_roots_and_caches_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INPUTSCAPE_DATA", str(tmp_path / "data"))
    assert data.default_root() == tmp_path / "data"
    assert data.default_root(tmp_path / "given") == tmp_path / "given"
    assert decoded.cache_folder() == Path(os.environ["INPUTSCAPE_CACHE"])
    monkeypatch.delenv("INPUTSCAPE_DATA")
    monkeypatch.delenv("INPUTSCAPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data.default_root() == tmp_path / "xdg" / "inputscape"
    assert decoded.cache_folder() == tmp_path / "xdg" / "inputscape" / "decoded"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.default_root() == tmp_path / ".cache" / "inputscape"


# --- fingerprints


def test_equal_folders_have_one_fingerprint_wherever_they_are(tmp_path: Path) -> None:
    folders(tmp_path / "here", CIFAR10, each=1)
    shutil.copytree(tmp_path / "here", tmp_path / "there" / "moved")
    (tmp_path / "there" / "moved" / "test").rename(tmp_path / "there" / "moved" / "val")
    here, there = (
        data.fingerprint(f"imagefolder:{tmp_path}/here"),
        data.fingerprint("imagefolder:moved", root=tmp_path / "there"),
    )
    assert here == there
    assert data.fingerprint("cifar10", root=tmp_path / "here") not in (here, "cifar10")
    tiny_imagenet(tmp_path / "one" / "tiny-imagenet-200")
    tiny_imagenet(tmp_path / "two")
    assert data.fingerprint("tiny_imagenet", root=tmp_path / "one") == data.fingerprint(
        "tiny_imagenet", root=tmp_path / "two"
    )


def rewrite(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # same name, same size
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: rewrite(root / "train" / "a" / "0.png"),
        lambda root: (root / "train" / "a" / "0.png").rename(root / "train" / "a" / "9.png"),
        lambda root: (root / "test" / "b" / "1.png").unlink(),
        lambda root: shutil.move(root / "train" / "a" / "1.png", root / "train" / "b" / "7.png"),
        lambda root: (root / "train" / "c").mkdir(),
        lambda root: (root / "train" / "a").rename(root / "train" / "A"),
    ],
)
def test_different_folders_have_different_fingerprints(tmp_path: Path, change: Any) -> None:
    folders(tmp_path, ["a", "b"])
    shutil.rmtree(tmp_path / "test" / "a")
    before = data.fingerprint(f"imagefolder:{tmp_path}")
    change(tmp_path)
    forget()
    assert data.fingerprint(f"imagefolder:{tmp_path}") != before


@pytest.mark.parametrize("file", ["wnids.txt", "words.txt", "val/val_annotations.txt"])
def test_tiny_imagenets_texts_are_in_its_fingerprint(tmp_path: Path, file: str) -> None:
    tiny_imagenet(tmp_path)
    before = data.fingerprint("tiny_imagenet", root=tmp_path)
    lines = (tmp_path / file).read_text().splitlines()
    (tmp_path / file).write_text("\n".join(lines[1:] + lines[:1]) + "\n")
    forget()
    assert data.fingerprint("tiny_imagenet", root=tmp_path) != before


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


# --- errors, and downloads


def test_names_are_the_files(tmp_path: Path) -> None:
    assert set(data.names()) >= {"blobs", "cifar10", "cifar100", "digits", "fashion_mnist", "imagefolder", "mnist"}
    assert not any(name.startswith("_") for name in data.names())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cifra10", "cifar10"),
        ("fashion-mnist", "fashion_mnist"),
        ("imagefoldr:/x", "imagefolder"),
        ("MNIST", None),
        ("", None),
    ],
)
def test_an_unknown_name_is_told_with_what_is_allowed(name: str, meant: str | None) -> None:
    for ask in (data.check, data.fingerprint, lambda name: data.load(name, "train")):
        with pytest.raises(UserError, match=r"unknown data set .*; allowed: blobs, cifar10") as caught:
            ask(name)
        assert caught.value.field == "dataset"
        assert meant is None or caught.value.message.endswith(f"did you mean {meant}?")


def test_other_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="unknown split 'val'; allowed: train, test"):
        data.load("digits", "val")
    with pytest.raises(UserError, match="image_size must be at least 1"):
        data.load("digits", "test", image_size=0)
    mistakes: list[tuple[Any, str]] = [
        (["zebra"], r"unknown class 'zebra'; allowed: blob 0, blob 1, blob 2, or an index 0\.\.2"),
        (["blob0"], r"did you mean blob 0\?"),
        ([3], "unknown class 3"),
        ([-1], "unknown class -1"),
        ([True], "unknown class True"),
        ([1, "blob 1"], "name one class twice"),
        ([], "no class is left"),
    ]
    for classes, line in mistakes:
        with pytest.raises(UserError, match=line) as caught:
            data.load("blobs", "test", classes=classes)
        assert caught.value.field == "classes"


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


def test_a_class_that_only_the_test_folder_has_is_told(tmp_path: Path) -> None:
    folders(tmp_path, ["a", "b"])
    image(tmp_path / "test" / "c" / "0.png", 1)
    with pytest.raises(UserError, match="has the class 'c'"):
        data.check(f"imagefolder:{tmp_path}")


def test_a_host_that_never_answers_costs_no_more_than_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*args: Any, **kwargs: Any) -> None:
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
        def log_message(self, *args: Any) -> None:
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
