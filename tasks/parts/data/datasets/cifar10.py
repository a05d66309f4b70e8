"""CIFAR-10, 3 x 32 x 32, 50,000 + 10,000 (Krizhevsky 2009).

Read from `cifar-10-batches-py/` below the data root or below `cifar10/` in it (torchvision's files, checksums
verified); where there is none, from an export as images, `train/<class>/*` and `test/<class>/*` with CIFAR-10's ten
class names, in the same two places. An export may be lossy: it has a fingerprint of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchvision.datasets import CIFAR10

from tasks.parts.data.downloads import batches_folder, batches_missing, read_batches, unreachable
from tasks.parts.data.folders import digest, labelled_files

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def read(split: str, root: Path) -> tuple[Any, Any, list[str]]:
    if place := _export(root):
        return *labelled_files(place / split, CLASSES), CLASSES
    return read_batches("cifar10", CIFAR10, split, root, _also(root))


def fingerprint(root: Path) -> str:
    if place := _export(root):
        return f"cifar10-images-{digest({split: place / split for split in ('train', 'test')})}"
    return "cifar10"  # no other content passes the checksums


def check(root: Path) -> None:
    if batches_folder("cifar10", CIFAR10, root) or _export(root):
        return
    if reason := unreachable([CIFAR10.url]):
        raise batches_missing("cifar10", CIFAR10, root, _also(root), reason)


def _export(root: Path) -> Path | None:
    """The folder of an export as images, unless the original is there."""
    if batches_folder("cifar10", CIFAR10, root):
        return None
    folders = [f"{split}/{name}" for split in ("train", "test") for name in CLASSES]
    return next((p for p in (root, root / "cifar10") if all((p / folder).is_dir() for folder in folders)), None)


def _also(root: Path) -> list[str]:
    return [f"{place}/{{train,test}}/{{airplane,...,truck}}/" for place in (root, root / "cifar10")]
