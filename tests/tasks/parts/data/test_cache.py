"""Images are checked and resized, decoded once, and never taken from a damaged entry."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from data_on_disk import folders, forget, image, mnist, own_cache

from tasks.parts.data import cache as decoded
from tasks.parts.data import load as data
from tasks.parts.settings import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from own_cache(tmp_path_factory.mktemp("cache"), monkeypatch)


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
def test_what_breaks_the_contract_is_told(raw: decoded.Raw, line: str) -> None:
    for door in (decoded.in_memory, lambda raw: decoded.cached(["broken"], lambda: raw)):
        with pytest.raises(UserError, match=line):
            door(raw)


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"not an image"])
def test_a_corrupt_image_is_named_and_nothing_is_left(
    tmp_path: Path, cache: Path, damage: Callable[[bytes], bytes]
) -> None:
    folders(tmp_path, ["a", "b"], each=3)
    bad = tmp_path / "train" / "b" / "1.png"
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(UserError, match=r"train/b/1\.png cannot be read as an image") as caught:
        data.load(f"imagefolder:{tmp_path}", "train")
    assert caught.value.field == "dataset"
    assert "\n" not in caught.value.message
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]
    data.load(f"imagefolder:{tmp_path}", "test")  # the other split is none the worse


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
def test_resizing_keeps_the_centre_and_flat_images(kind: type[np.generic]) -> None:
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


# --- entries


def counted(log: Path) -> decoded.Raw:
    with open(log, "a") as file:
        file.write("made\n")
    time.sleep(0.4)
    return np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2), [0, 1], ["a", "b"]


def ask(log: Path, results: multiprocessing.Queue[tuple[list, list, tuple[str, ...]]]) -> None:
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
def test_a_damaged_entry_is_made_again(tmp_path: Path, cache: Path, damage: Callable[[Path], object]) -> None:
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
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    mnist(tmp_path / "MNIST" / "raw")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="No space left on device"):
        data.load("mnist", "test", root=tmp_path)
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]
