"""Small data sets, written to disk in the formats that can be read."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from tasks.parts.data import load as data

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def forget() -> None:
    """Data sets are looked for and opened again, as by a new process."""
    data._load.cache_clear()
    data._fingerprint.cache_clear()


def own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """For a fixture: a cache of its own, in memory and on disk."""
    monkeypatch.setenv("INPUTSCAPE_CACHE", str(folder))
    forget()
    yield folder
    forget()
    shutil.rmtree(folder)


def image(path: Path, pixels: np.ndarray | int, size: tuple[int, int] = (4, 4)) -> np.ndarray:
    """Writes an image and returns it as (3, H, W).

    Args:
        path: of the image.
        pixels: (H, W, 3) uint8, or the seed of noise.
        size: (H, W) of noise.
    """
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
    """Three classes: wnids out of order, two with the same first word, shuffled validation images.

    Returns the training images.
    """
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


def cifar_batches(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Batch files of CIFAR-10 with three images each, and checksums; returns the test images."""
    folder, dataset = root / "cifar-10-batches-py", torchvision.datasets.CIFAR10
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, object]) -> list[str]:
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
